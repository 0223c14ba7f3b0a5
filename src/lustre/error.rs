//! Why a mount is not served, with what to do.

use super::{OtherTool, UnreadyCoordinators};
use crate::action::HsmError;
use crate::types::{ErrorClass, Mdt};

/// What a process of ours is called.
const OURS: &str = "lhsmtool-s3";

/// Why there is no agent.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// Another copytool of ours serves this mount: the one that has the mount's lock, where it can be seen.
    #[error("{}", occupied(.0.as_ref()))]
    Occupied(Option<OtherTool>),
    /// Another program serves it.
    #[error(
        "{0} serves this mount point as a copytool. Lustre knows one agent per mount: registering would take its messages \
             away without a sign, and its readers would wait for ever. Stop it, or mount the file system a second time \
             for this daemon. If it is none, set `other_tool = \"ignore\"` in section [lustre]"
    )]
    OtherTool(OtherTool),
    /// The lock itself failed.
    #[error("can't take the lock that keeps a second copytool off this mount: {0}")]
    Lock(std::io::Error),
    /// Coordinators are off, or MDTs away.
    #[error("{}", away(.0))]
    Away(UnreadyCoordinators),
    /// The mount point is another mount than the one that was opened.
    #[error("the file system was mounted anew: all that is open here belongs to the former mount")]
    MountedAnew,
    /// Nothing is mounted there.
    #[error("the file system is not mounted any more")]
    Unmounted,
    /// A call failed.
    #[error("{0}{hint}", hint = hint(.0))]
    Call(#[from] HsmError),
    /// The pipe's own errors.
    #[error("can't make the message pipe: {0}")]
    Pipe(std::io::Error),
}

impl AgentError {
    /// Whether waiting may help; the rest needs an administrator.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Away(_) | Self::Unmounted => true,
            Self::Call(error) => !matches!(
                error.class(),
                ErrorClass::Refused | ErrorClass::Denied | ErrorClass::Invalid | ErrorClass::WrongKind
            ),
            Self::MountedAnew | Self::Occupied(_) | Self::OtherTool(_) | Self::Lock(_) | Self::Pipe(_) => false,
        }
    }
}

/// Who has the mount's lock, and what to do.
fn occupied(holder: Option<&OtherTool>) -> String {
    let whose = match holder {
        // One whose name can't be read is taken for ours.
        Some(holder) if !holder.name.is_empty() && !holder.name.starts_with(OURS) => {
            return format!(
                "{holder} has locked this mount's root directory (flock), as a daemon of {OURS} does with the one that it \
                 serves. End it, or have it lock something else"
            );
        }
        Some(holder) => format!(": {holder}"),
        None => {
            ", as a process that is not seen from here (one in a container, say; on the host `lslocks` tells)".into()
        }
    };
    format!(
        "another {OURS} already serves this mount point{whose}. Lustre knows one agent per mount: give one daemon all \
         archive ids, or mount the file system a second time for a second daemon"
    )
}

/// What is wrong, and what to do.
fn away(probed: &UnreadyCoordinators) -> String {
    let join = |mdts: &[Mdt], each: fn(&Mdt) -> String, by: &str| mdts.iter().map(each).collect::<Vec<_>>().join(by);
    let names = |mdts: &[Mdt]| join(mdts, |mdt| format!("{:04x}", mdt.0), ", ");
    let mut texts = Vec::new();
    if !probed.stopped.is_empty() {
        let (s, are) = match probed.stopped.len() {
            1 => ("", "is"),
            _ => ("s", "are"),
        };
        let fix = join(&probed.stopped, |mdt| format!("mdt.*-{mdt}.hsm_control=enabled"), " ");
        texts.push(format!(
            "the HSM coordinator{s} of MDT {} {are} stopped. On the server: lctl set_param {fix}",
            names(&probed.stopped)
        ));
    }
    if !probed.silent.is_empty() {
        texts.push(format!(
            "MDT {} does not answer, and who registers would wait for it. See its server and `lfs check mds`; where it is \
             gone for long: lctl --device NAME deactivate, for its mdc device of this client (lctl dl)",
            names(&probed.silent)
        ));
    }
    texts.join(". And ")
}

fn hint(error: &HsmError) -> &'static str {
    match error.class() {
        ErrorClass::Refused | ErrorClass::Denied => {
            ". A copytool needs CAP_SYS_ADMIN, and the nodemap's rbac role hsm_ops where nodemaps are used"
        }
        ErrorClass::Invalid => ". Lustre 2.10 and its servers know archive ids 1 to 32 only",
        ErrorClass::Nothing | ErrorClass::Stopped | ErrorClass::Starting => {
            ". The coordinator is stopped or starting: on the MDS, lctl set_param mdt.*.hsm_control=enabled"
        }
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_a_mounts_lock_is_named_and_told_apart_from_a_daemon_of_ours() {
        let of = |name: &str| {
            let name = name.to_owned();
            AgentError::Occupied(Some(OtherTool { pid: 7, name })).to_string()
        };
        let ours = of("lhsmtool-s3");
        let serves = "another lhsmtool-s3 already serves this mount point";
        assert!(
            ours.starts_with(&format!("{serves}: process 7 (lhsmtool-s3). ")),
            "{ours}"
        );
        let nameless = of("");
        assert!(nameless.starts_with(&format!("{serves}: process 7. ")), "{nameless}");
        let strange = of("flock");
        assert!(
            strange.starts_with("process 7 (flock) has locked") && strange.contains("End it"),
            "{strange}"
        );
        let unseen = AgentError::Occupied(None).to_string();
        assert!(
            unseen.starts_with(serves) && unseen.contains("not seen from here"),
            "{unseen}"
        );
    }

    #[test]
    fn every_mdt_that_is_stopped_or_silent_is_named_with_what_to_do() {
        let text = |stopped: &[u32], silent: &[u32]| {
            let mdts = |indices: &[u32]| indices.iter().copied().map(Mdt).collect();
            let (stopped, silent) = (mdts(stopped), mdts(silent));
            AgentError::Away(UnreadyCoordinators { stopped, silent }).to_string()
        };
        let one = text(&[2], &[]);
        assert!(one.contains("coordinator of MDT 0002 is stopped"), "{one}");
        assert!(
            one.contains("lctl set_param mdt.*-MDT0002.hsm_control=enabled"),
            "{one}"
        );
        let all = text(&[1, 0x1f], &[3]);
        assert!(all.contains("coordinators of MDT 0001, 001f are stopped"), "{all}");
        assert!(all.contains("mdt.*-MDT001f.hsm_control=enabled"), "{all}");
        assert!(all.contains("MDT 0003 does not answer"), "{all}");
    }
}

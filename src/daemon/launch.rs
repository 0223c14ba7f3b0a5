//! `--daemon` and `--pid-file`: whoever starts the daemon learns whether it serves.

use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, ExitStatus};

use tempfile::NamedTempFile;

/// The process that waits for the word of this one, which is its child.
const STARTER: &str = "LHSMTOOL_S3_STARTER";
/// One byte: it serves.
const SERVES: &[u8] = b"+";

/// Which of the two processes this is, behind [`into_background`].
#[derive(Debug)]
pub enum Background {
    /// It started the other one and waited for its word: it is over, with this code.
    Over(ExitCode),
    /// It is the daemon.
    Daemon(Starter),
}

/// Waits for a word.
#[derive(Debug)]
pub struct Starter(File);

impl Starter {
    /// The daemon serves.
    pub fn tell(&self) {
        // It may be gone: somebody did not want to wait.
        let _gone = (&self.0).write_all(SERVES);
    }
}

/// Starts this program anew as a daemon, in a session of its own, and waits until it serves, or ends: then with its exit
/// code. Output goes where it went before. Call it before there is any thread.
///
/// # Errors
/// The system gives no process, no pipe, no session.
pub fn into_background() -> io::Result<Background> {
    let parent = nix::unistd::getppid().to_string();
    if std::env::var(STARTER).is_ok_and(|starter| starter == parent) {
        // What is our standard input is the pipe to it; whoever we start must not hold it open.
        let starter = File::from(io::stdin().as_fd().try_clone_to_owned()?);
        nix::unistd::dup2_stdin(File::open("/dev/null")?)?;
        nix::unistd::setsid()?;
        return Ok(Background::Daemon(Starter(starter)));
    }
    let (mut word, pipe) = io::pipe()?;
    // By its own name, for scripts look for that (pkill).
    let mut child = Command::new(std::env::current_exe()?)
        .args(std::env::args_os().skip(1))
        .env(STARTER, std::process::id().to_string())
        .stdin(pipe)
        .spawn()?;
    let mut byte = [0];
    if word.read_exact(&mut byte).is_ok() {
        return Ok(Background::Over(ExitCode::SUCCESS));
    }
    Ok(Background::Over(code_of(child.wait()?)))
}

fn code_of(status: ExitStatus) -> ExitCode {
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    code.map_or(ExitCode::FAILURE, ExitCode::from)
}

/// Is there while the daemon serves.
#[derive(Debug)]
pub struct PidFile(PathBuf);

impl PidFile {
    /// Whether there can be one. Nothing is left of the try.
    ///
    /// # Errors
    /// Why not.
    pub fn try_out(path: &Path) -> Result<(), String> {
        let tried = if is_special(path) {
            OpenOptions::new().append(true).open(path).map(drop)
        } else {
            beside(path).map(drop)
        };
        tried.map_err(|error| refusal(path, &error))
    }

    /// Writes the number of this process into it: who reads it sees all of it, or what was there before.
    ///
    /// # Errors
    /// It can't be written.
    pub fn write(path: &Path) -> Result<Self, String> {
        put(path, &own()).map_err(|error| refusal(path, &error))?;
        Ok(Self(path.to_owned()))
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        // Whoever looks finds no process with that number. It may be a successor's by now.
        if std::fs::read_to_string(&self.0).is_ok_and(|found| found == own()) && !is_special(&self.0) {
            let _gone = std::fs::remove_file(&self.0);
        }
    }
}

fn refusal(path: &Path, error: &io::Error) -> String {
    format!("can't write --pid-file '{}': {error}", path.display())
}

fn own() -> String {
    format!("{}\n", std::process::id())
}

/// Somebody made something else than a file there, and wants it written to: a link, a device.
fn is_special(path: &Path) -> bool {
    std::fs::symlink_metadata(path).is_ok_and(|found| !found.is_file())
}

/// A new file in the same directory.
fn beside(path: &Path) -> io::Result<NamedTempFile> {
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty());
    tempfile::Builder::new()
        .permissions(Permissions::from_mode(0o644))
        .tempfile_in(dir.unwrap_or(Path::new(".")))
}

fn put(path: &Path, text: &str) -> io::Result<()> {
    if is_special(path) {
        return std::fs::write(path, text);
    }
    let mut file = beside(path)?;
    file.write_all(text.as_bytes())?;
    file.persist(path)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pid_file_goes_with_its_daemon_but_never_with_another_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pid");
        PidFile::try_out(&path).unwrap();
        assert_eq!(
            std::fs::read_dir(dir.path()).unwrap().count(),
            0,
            "nothing is left of the try"
        );
        let file = PidFile::write(&path).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), own());
        drop(file);
        assert!(!path.exists());
        let file = PidFile::write(&path).unwrap();
        // A successor's.
        std::fs::write(&path, "1\n").unwrap();
        drop(file);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "1\n");
        // And one that is left by a daemon that was killed is taken over.
        drop(PidFile::write(&path).unwrap());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn what_is_no_file_is_written_to_and_stays() {
        let dir = tempfile::tempdir().unwrap();
        let (link, behind) = (dir.path().join("link"), dir.path().join("behind"));
        std::fs::write(&behind, "").unwrap();
        std::os::unix::fs::symlink(&behind, &link).unwrap();
        PidFile::try_out(&link).unwrap();
        let file = PidFile::write(&link).unwrap();
        assert_eq!(std::fs::read_to_string(&behind).unwrap(), own());
        drop(file);
        assert!(link.is_symlink() && behind.exists());
        assert!(
            PidFile::try_out(&dir.path().join("none/pid"))
                .unwrap_err()
                .contains("--pid-file")
        );
    }
}

//! `lfs`' HSM commands, with its argument forms and its output.

use std::fmt::Write as _;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use lhsm_sandbox_protocol::{Action, ActionState, FileState, Reply, Request, states};

use crate::Client;
use crate::stripes::Stripes;

const LAYOUT: &str = "lustre.lov";

/// One command of `lfs`.
#[derive(Debug, Subcommand)]
#[command(rename_all = "snake_case")]
pub enum Lfs {
    /// Copy files to their archive
    HsmArchive(Files),
    /// Bring released files back
    HsmRestore(Files),
    /// Free the space of archived files
    HsmRelease(Files),
    /// Delete the archived copies
    HsmRemove(Files),
    /// Stop what is being done for files
    HsmCancel(Files),
    /// Show the states of files
    HsmState {
        /// Files
        #[arg(required = true)]
        files: Vec<PathBuf>,
    },
    /// Show what is being done for files
    HsmAction {
        /// Files
        #[arg(required = true)]
        files: Vec<PathBuf>,
    },
    /// Set states
    HsmSet(Flags),
    /// Clear states
    HsmClear(Flags),
    /// Make a file with a layout: [-E END] [-c COUNT] [-S SIZE] … FILE
    #[command(name = "setstripe")]
    SetStripe {
        /// As lfs has them
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
        arguments: Vec<String>,
    },
    /// Show the layout of files
    #[command(name = "getstripe")]
    GetStripe {
        /// With all of it, as it is without
        #[arg(short)]
        verbose: bool,
        /// The MDT's index alone
        #[arg(short = 'm', conflicts_with = "verbose")]
        mdt: bool,
        /// Files
        #[arg(required = true)]
        files: Vec<PathBuf>,
    },
    /// Make directories on an MDT
    Mkdir {
        /// Which
        #[arg(short = 'i', default_value_t = 0)]
        mdt: u32,
        /// Directories
        #[arg(required = true)]
        directories: Vec<PathBuf>,
    },
    /// Show the MDTs
    Mdts {
        /// The mount point
        mount: PathBuf,
    },
    /// Show the FID of files
    Path2fid {
        /// Files
        #[arg(required = true)]
        files: Vec<PathBuf>,
    },
}

/// Files of a request.
#[derive(Debug, Args)]
pub struct Files {
    /// Read the names from a file, one on each line
    #[arg(long, value_name = "FILE")]
    filelist: Option<PathBuf>,
    /// For the copytool
    #[arg(long, default_value = "")]
    data: String,
    /// Archive id (archive only)
    #[arg(long, short, default_value_t = 0)]
    archive: u32,
    /// Files
    files: Vec<PathBuf>,
}

/// States to set or clear.
#[derive(Debug, Args)]
pub struct Flags {
    /// NORELEASE
    #[arg(long)]
    norelease: bool,
    /// NOARCHIVE
    #[arg(long)]
    noarchive: bool,
    /// DIRTY
    #[arg(long)]
    dirty: bool,
    /// EXISTS
    #[arg(long)]
    exists: bool,
    /// ARCHIVED
    #[arg(long)]
    archived: bool,
    /// LOST
    #[arg(long)]
    lost: bool,
    /// Archive id
    #[arg(long, short = 'i')]
    archive_id: Option<u32>,
    /// Files
    #[arg(required = true)]
    files: Vec<PathBuf>,
}

impl Flags {
    fn mask(&self) -> u32 {
        [
            (self.norelease, states::NORELEASE),
            (self.noarchive, states::NOARCHIVE),
            (self.dirty, states::DIRTY),
            (self.exists, states::EXISTS),
            (self.archived, states::ARCHIVED),
            (self.lost, states::LOST),
        ]
        .into_iter()
        .filter_map(|(set, state)| set.then_some(state))
        .sum()
    }
}

/// Runs a command; its output.
///
/// # Errors
/// The first file that can't be done, with its name.
pub fn run(command: &Lfs) -> io::Result<String> {
    match command {
        Lfs::HsmArchive(files) => request(Action::Archive, files),
        Lfs::HsmRestore(files) => request(Action::Restore, files),
        Lfs::HsmRemove(files) => request(Action::Remove, files),
        Lfs::HsmCancel(files) => request(Action::Cancel, files),
        Lfs::HsmRelease(files) => each(&files.all()?, |client, path| {
            let fid = client.fid(path)?;
            client.release(fid)?;
            Ok(String::new())
        }),
        Lfs::HsmState { files } => each(files, |client, path| {
            let fid = client.fid(path)?;
            let state = client.state(fid)?;
            Ok(format!("{}: {}\n", path.display(), describe(&state)))
        }),
        Lfs::HsmAction { files } => each(files, |client, path| {
            let fid = client.fid(path)?;
            let state = client.state(fid)?;
            Ok(format!("{}: {}\n", path.display(), action(&state)))
        }),
        Lfs::HsmSet(flags) => set(flags, flags.mask(), 0, flags.archive_id),
        Lfs::HsmClear(flags) => set(flags, 0, flags.mask(), None),
        Lfs::SetStripe { arguments } => {
            let (stripes, path) = Stripes::parse(arguments).map_err(io::Error::other)?;
            each(&[path], |client, path| {
                File::create_new(path)?;
                let fid = client.fid(path)?;
                client.set_xattr(fid, LAYOUT, &stripes.to_bytes())?;
                Ok(String::new())
            })
        }
        Lfs::GetStripe { files, mdt, .. } => each(files, |client, path| {
            let fid = client.fid(path)?;
            if *mdt {
                return match client.ask(&Request::MdtOf(fid))? {
                    Reply::Ok(index) => Ok(format!("{index}\n")),
                    _ => Err(io::Error::other("unexpected reply of the sandbox")),
                };
            }
            let stripes = Stripes::from_bytes(&client.xattr(fid, LAYOUT)?);
            let stripes = stripes.ok_or_else(|| io::Error::other("its layout is of another kind"))?;
            Ok(format!("{}\n{stripes}", path.display()))
        }),
        Lfs::Mkdir { mdt, directories } => each(directories, |client, path| {
            client.make_dir(path, *mdt)?;
            Ok(String::new())
        }),
        Lfs::Mdts { mount } => each(std::slice::from_ref(mount), |client, _| {
            let Reply::Ok(mdts) = client.ask(&Request::MdtCount)? else {
                return Err(io::Error::other("unexpected reply of the sandbox"));
            };
            let lines = (0..mdts).map(|n| format!("{n}: lustre-MDT{n:04x}_UUID ACTIVE\n"));
            Ok(format!("MDTS:\n{}", lines.collect::<String>()))
        }),
        Lfs::Path2fid { files } => each(files, |client, path| Ok(format!("{}\n", client.fid(path)?))),
    }
}

impl Files {
    fn all(&self) -> io::Result<Vec<PathBuf>> {
        let mut files = self.files.clone();
        if let Some(list) = &self.filelist {
            files.extend(std::fs::read_to_string(list)?.lines().map(PathBuf::from));
        }
        if files.is_empty() {
            return Err(io::Error::other("no files: name some, or a --filelist"));
        }
        Ok(files)
    }
}

fn each(files: &[PathBuf], f: impl Fn(&mut Client, &Path) -> io::Result<String>) -> io::Result<String> {
    let mut output = String::new();
    for path in files {
        let done = Client::of(path).and_then(|mut client| f(&mut client, path));
        output += &done.map_err(|error| named(path, &error))?;
    }
    Ok(output)
}

fn named(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("'{}': {error}", path.display()))
}

fn request(action: Action, files: &Files) -> io::Result<String> {
    let paths = files.all()?;
    let Some(first) = paths.first() else {
        return Ok(String::new());
    };
    let mut client = Client::of(first)?;
    let mut fids = Vec::with_capacity(paths.len());
    for path in &paths {
        fids.push(client.fid(path).map_err(|error| named(path, &error))?);
    }
    // One ioctl, as lfs makes it: with too many files it is refused as a whole (E2BIG).
    client.ask(&Request::Hsm {
        action,
        archive_id: files.archive,
        flags: 0,
        fids,
        data: files.data.clone().into_bytes(),
    })?;
    Ok(String::new())
}

fn set(flags: &Flags, set: u32, clear: u32, archive_id: Option<u32>) -> io::Result<String> {
    each(&flags.files, |client, path| {
        let fid = client.fid(path)?;
        client.ask(&Request::SetState {
            fid,
            set,
            clear,
            archive_id,
        })?;
        Ok(String::new())
    })
}

fn describe(state: &FileState) -> String {
    let names = [
        (states::RELEASED, "released"),
        (states::EXISTS, "exists"),
        (states::DIRTY, "dirty"),
        (states::ARCHIVED, "archived"),
        (states::NORELEASE, "never_release"),
        (states::NOARCHIVE, "never_archive"),
        (states::LOST, "lost_from_hsm"),
    ];
    let mut text = format!("({:#010x})", state.states);
    for (flag, name) in names {
        if state.states & flag != 0 {
            // Writing to a String does not fail.
            let _infallible = write!(text, " {name}");
        }
    }
    if state.archive_id != 0 {
        let _infallible = write!(text, ", archive_id:{}", state.archive_id);
    }
    text
}

fn action(state: &FileState) -> String {
    match state.action {
        None => "NOOP".into(),
        Some((action, progress)) => {
            let progress = match progress {
                ActionState::Waiting => "waiting",
                ActionState::Started => "running",
                ActionState::Succeed | ActionState::Failed | ActionState::Canceled => "done",
            };
            format!("{action} {progress}")
        }
    }
}

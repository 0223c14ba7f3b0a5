//! Errnos: the one table of what each means, and those that a coordinator can be told.

use std::fmt;
use std::io;

macro_rules! classes {
    ($($(#[$meaning:meta])+ $class:ident: $first:ident $(, $more:ident)*;)+) => {
        /// What Lustre, or the system below it, says by an errno, by what can be done about it. Whoever has to decide
        /// decides by this, not by the number.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        pub enum ErrorClass {
            $($(#[$meaning])+ $class,)+
            /// Everything else: nobody here does anything particular about it.
            Other,
        }

        impl ErrorClass {
            /// The class of a positive errno.
            #[must_use]
            pub const fn of(errno: i32) -> Self {
                match errno {
                    $(libc::$first $(| libc::$more)* => Self::$class,)+
                    _ => Self::Other,
                }
            }

            /// The errno by which we say this ourselves; EIO for what has no better number.
            #[must_use]
            pub const fn errno(self) -> i32 {
                match self {
                    $(Self::$class => libc::$first,)+
                    Self::Other => libc::EIO,
                }
            }
        }
    };
}

classes! {
    /// The file, the action or a changelog's reader is not there, or not any more. Of a progress or an end: the
    /// coordinator has forgotten the action.
    Gone: ENOENT;
    /// A name on the way is no directory's.
    NoDirectory: ENOTDIR;
    /// No file can have such a name.
    NameTooLong: ENAMETOOLONG;
    /// The file has no such attribute. Readers of a file whose restore failed get it, too.
    NoAttribute: ENODATA;
    /// The coordinator accepted a cancel of the action.
    Cancelled: ECANCELED;
    /// The file changed while it was archived, or somebody has it open.
    Busy: EBUSY;
    /// The coordinator is stopped; it knows its actions still, and may be asked again.
    Stopped: EAGAIN;
    /// The coordinator is about to start.
    Starting: EINPROGRESS;
    /// There is nothing to ask: no MDT has the index, no data comes behind the offset. Of a registration: the
    /// coordinator is stopped.
    Nothing: ENXIO;
    /// This client was evicted or is cut off, or its MDT was unmounted.
    CutOff: ESHUTDOWN, ENOTCONN;
    /// The server did not answer in time.
    Silent: ETIMEDOUT;
    /// No way leads to the server.
    Unreachable: EHOSTUNREACH, ENETUNREACH;
    /// The mount point is not the file system any more, or an MDT's device is not set up.
    Unmounted: ENODEV;
    /// The call was broken off. A descriptor says so once after its client was evicted, and works again then.
    BrokenOff: EIO, EINTR;
    /// What was opened or looked up is not that any more.
    Stale: ESTALE;
    /// It is not to be done: by the file's states or its archive id, by an immutable directory, or by one who is not
    /// root.
    Refused: EPERM;
    /// Who asks has no permission.
    Denied: EACCES;
    /// What was given makes no sense to it. Of a restore's end: the MDT knows another data FID.
    Invalid: EINVAL;
    /// A value does not fit.
    OutOfRange: ERANGE;
    /// This file system, release or layout does not do that.
    Unsupported: EOPNOTSUPP;
    /// This kernel does not have the call.
    NotImplemented: ENOSYS;
    /// This kind of file does not have the ioctl. Of an import: a directory has the name.
    WrongKind: ENOTTY;
    /// Something has the name.
    Taken: EEXIST, EISDIR;
    /// An attribute, or a request's data, is larger than Lustre takes.
    TooMuch: E2BIG;
    /// The file would be larger than its layout can hold.
    TooLarge: EFBIG;
    /// No space is left; or an attribute is larger than an MDT without `ea_inode` takes.
    Full: ENOSPC;
    /// No space is left for this owner.
    OverQuota: EDQUOT;
    /// Nothing can be written there.
    ReadOnly: EROFS;
    /// This process or this node has no descriptor left.
    NoDescriptors: EMFILE, ENFILE;
    /// A symlink is on the way.
    Symlink: ELOOP;
    /// The way leads to another file system, or out of the directory.
    Outside: EXDEV;
}

impl ErrorClass {
    /// The class of an I/O error; what the system gave no number for is [`ErrorClass::Other`].
    #[must_use]
    pub fn of_io(error: &io::Error) -> Self {
        error.raw_os_error().map_or(Self::Other, Self::of)
    }

    /// Whether the coordinator can't be asked now and can be soon: it is stopped or starting, or this client is cut off.
    /// It says nothing of the file or action that was asked about.
    #[must_use]
    pub const fn is_off(self) -> bool {
        matches!(self, Self::Stopped | Self::Starting | Self::CutOff)
    }

    /// Whether it is the MDT itself that does not answer, so that others are asked without it.
    #[must_use]
    pub const fn is_away(self) -> bool {
        matches!(self, Self::CutOff | Self::Silent | Self::Unreachable)
    }

    /// Whether it passes by itself and says nothing of the file: what [`ErrorClass::is_off`] means, and all that an evicted
    /// client, an MDT that is away or a file system that is mounted anew says of any file.
    #[must_use]
    pub const fn is_passing(self) -> bool {
        self.is_off() || matches!(self, Self::Silent | Self::Unmounted | Self::BrokenOff | Self::Stale)
    }
}

/// As the system would say it.
impl From<ErrorClass> for io::Error {
    fn from(class: ErrorClass) -> Self {
        io_error(class.errno())
    }
}

/// The errno of an I/O error, for those who are told of it; EIO where the system gave none.
#[must_use]
pub fn errno_of(error: &io::Error) -> i32 {
    error.raw_os_error().unwrap_or(libc::EIO)
}

/// The I/O error of an errno, which has the system's words for it.
#[must_use]
pub fn io_error(errno: i32) -> io::Error {
    io::Error::from_raw_os_error(errno)
}

/// An errno that the coordinator's log can hold: 1..=126 (`CLF_HSM_MAXERROR`), never ENOSYS, which it
/// takes for "this copytool cannot cancel", and never ECANCELED, which has a [`Verdict`] of its own.
///
/// [`Verdict`]: crate::action::Verdict
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct HsmErrno(u8);

impl HsmErrno {
    /// EIO, for what has no better number.
    pub const EIO: Self = Self::known(libc::EIO);
    /// ENOENT: the object is gone.
    pub const ENOENT: Self = Self::known(libc::ENOENT);
    /// EACCES: the store denied it.
    pub const EACCES: Self = Self::known(libc::EACCES);
    /// EBUSY: the file changed while it was read.
    pub const EBUSY: Self = Self::known(libc::EBUSY);
    /// EINVAL: an action that we don't know or can't do.
    pub const EINVAL: Self = Self::known(libc::EINVAL);
    /// EALREADY: another action does this already; does not make the file dirty (LU-19829).
    pub const EALREADY: Self = Self::known(libc::EALREADY);
    /// ESTALE: the object is not the one that was archived.
    pub const ESTALE: Self = Self::known(libc::ESTALE);
    /// ETIMEDOUT: the store did not recover in time.
    pub const ETIMEDOUT: Self = Self::known(libc::ETIMEDOUT);
    /// ESHUTDOWN: this copytool is going away.
    pub const ESHUTDOWN: Self = Self::known(libc::ESHUTDOWN);
    /// EFBIG: larger than an object can be.
    pub const EFBIG: Self = Self::known(libc::EFBIG);
    /// EEXIST: the key holds somebody else's only copy.
    pub const EEXIST: Self = Self::known(libc::EEXIST);

    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "asserted to lie in 1..=126"
    )]
    const fn known(errno: i32) -> Self {
        assert!(errno >= 1 && errno <= 126);
        Self(errno as u8)
    }

    /// The errno itself where the coordinator can take it, else EIO.
    #[must_use]
    pub fn from_raw(errno: i32) -> Self {
        if errno == libc::ENOSYS || errno == libc::ECANCELED {
            return Self::EIO;
        }
        match u8::try_from(errno) {
            Ok(e @ 1..=126) => Self(e),
            _ => Self::EIO,
        }
    }

    /// The number, for C.
    #[must_use]
    pub const fn get(self) -> i32 {
        self.0 as i32
    }

    /// The name that an administrator knows, e.g. `ENOENT`.
    #[must_use]
    pub fn name(self) -> String {
        format!("{:?}", nix::errno::Errno::from_raw(self.get()))
    }
}

impl fmt::Display for HsmErrno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name())
    }
}

impl fmt::Debug for HsmErrno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn an_errno_for_the_coordinator_always_fits_its_log(errno: i32) {
            let e = HsmErrno::from_raw(errno);
            prop_assert!((1..=126).contains(&e.get()));
            prop_assert!(e.get() != libc::ENOSYS && e.get() != libc::ECANCELED);
        }

        #[test]
        fn the_errno_of_a_class_is_of_that_class(errno in 0..200) {
            let class = ErrorClass::of(errno);
            let own = ErrorClass::of(class.errno());
            prop_assert!(own == class || (class == ErrorClass::Other && class.errno() == libc::EIO));
            prop_assert_eq!(ErrorClass::of_io(&io_error(errno)), class);
            prop_assert_eq!(errno_of(&class.into()), class.errno());
        }
    }

    /// Each errno that a live Lustre 2.17 or its source was seen to give, with what it was said of.
    #[test]
    fn what_lustre_says_has_the_class_of_what_it_means() {
        use super::ErrorClass as Class;
        let seen = [
            (
                "progress or end of an action that the coordinator forgot",
                libc::ENOENT,
                Class::Gone,
            ),
            ("begin of a file that was unlinked meanwhile", libc::ENOENT, Class::Gone),
            ("import below a directory that is not there", libc::ENOENT, Class::Gone),
            (
                "progress of an action whose cancel was accepted",
                libc::ECANCELED,
                Class::Cancelled,
            ),
            (
                "progress, end or request while the coordinator is stopped",
                libc::EAGAIN,
                Class::Stopped,
            ),
            (
                "registration while the coordinator is stopped",
                libc::ENXIO,
                Class::Nothing,
            ),
            ("SEEK_DATA behind the last data", libc::ENXIO, Class::Nothing),
            (
                "registration while the coordinator starts",
                libc::EINPROGRESS,
                Class::Starting,
            ),
            ("registration while no MDT is reached", libc::ENOTCONN, Class::CutOff),
            (
                "read on the node of an MDT that is unmounted",
                libc::ESHUTDOWN,
                Class::CutOff,
            ),
            (
                "first call by a descriptor after an eviction",
                libc::EIO,
                Class::BrokenOff,
            ),
            ("end of an archive whose file changed", libc::EBUSY, Class::Busy),
            ("lease or release of a file that is open", libc::EBUSY, Class::Busy),
            ("registration where a nodemap forbids it", libc::EPERM, Class::Refused),
            (
                "end of a restore whose MDT was away meanwhile",
                libc::EPERM,
                Class::Refused,
            ),
            (
                "archive or remove by a user, remove of a released file",
                libc::EPERM,
                Class::Refused,
            ),
            (
                "request where a nodemap forbids it, release of another's file",
                libc::EACCES,
                Class::Denied,
            ),
            ("end of a restore by a second data FID", libc::EINVAL, Class::Invalid),
            (
                "progress of a remove after the last unlink",
                libc::EINVAL,
                Class::Invalid,
            ),
            ("rename that is not to replace anything", libc::EINVAL, Class::Invalid),
            (
                "end of a restore whose layouts can't be swapped",
                libc::ENOTSUP,
                Class::Unsupported,
            ),
            ("migration of a released file", libc::EOPNOTSUPP, Class::Unsupported),
            ("import onto a directory", libc::ENOTTY, Class::WrongKind),
            ("import onto a file or symlink", libc::EEXIST, Class::Taken),
            ("second registration of a mount", libc::EEXIST, Class::Taken),
            ("attribute of more than 64 KiB", libc::E2BIG, Class::TooMuch),
            ("request with 3900 bytes of data", libc::E2BIG, Class::TooMuch),
            ("import of more than 16 TiB a stripe", libc::EFBIG, Class::TooLarge),
            ("read of a file whose restore failed", libc::ENODATA, Class::NoAttribute),
            (
                "answer for a cancel that a tool can't do",
                libc::ENOSYS,
                Class::NotImplemented,
            ),
            (
                "answer for an action that another one does already",
                libc::EALREADY,
                Class::Other,
            ),
            ("write to a volatile file without a layout", libc::EBADF, Class::Other),
            ("message to an agent that is gone", libc::EPIPE, Class::Other),
            (
                "half a message, by releases before LU-20183",
                libc::EPROTO,
                Class::Other,
            ),
        ];
        for (of, errno, class) in seen {
            assert_eq!(ErrorClass::of(errno), class, "{of}");
        }
    }

    /// The rest would be taken for an object's or a file's own trouble.
    #[test]
    fn what_passes_by_itself_is_known_as_that() {
        // Off: the coordinator. Away: an MDT. Passing: whatever is asked of any file.
        let table = [
            (libc::EAGAIN, "off passing"),
            (libc::EINPROGRESS, "off passing"),
            (libc::ENOTCONN, "off away passing"),
            (libc::ESHUTDOWN, "off away passing"),
            (libc::ETIMEDOUT, "away passing"),
            (libc::EHOSTUNREACH, "away"),
            (libc::ENETUNREACH, "away"),
            (libc::EINTR, "passing"),
            (libc::EIO, "passing"),
            (libc::ENODEV, "passing"),
            (libc::ESTALE, "passing"),
        ];
        for errno in 0..200 {
            let class = ErrorClass::of(errno);
            let said = [
                (class.is_off(), "off"),
                (class.is_away(), "away"),
                (class.is_passing(), "passing"),
            ];
            let said: Vec<_> = said.iter().filter_map(|(is, word)| is.then_some(*word)).collect();
            let promised = table.iter().find(|(of, _)| *of == errno).map_or("", |(_, words)| words);
            assert_eq!(said.join(" "), promised, "{errno}: {class:?}");
        }
    }
}

//! What must happen: each dialect with the verbs that it makes impossible, which then have to say so, and with the words
//! for the page. All other verbs have to work.

use lhsm_sandbox_s3::Dialect;

use crate::verbs::Verb;

/// What must happen with one dialect.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Row {
    /// More lines of its `[[archive]]` section, without which a site could not use such a store.
    pub(crate) settings: &'static str,
    /// The verbs that are refused with words.
    pub(crate) told: &'static [Verb],
    /// What comes of it, for the page.
    pub(crate) note: &'static str,
}

/// Nothing else but `check` is told: the store is served with less, or in another way.
const CHECK: &[Verb] = &[Verb::Check];
/// Whatever has to see all keys.
const LISTINGS: &[Verb] = &[Verb::Import, Verb::Rebuild, Verb::Scrub, Verb::ScrubDeep, Verb::Check];
/// Whatever writes an object.
const WRITES: &[Verb] = &[
    Verb::Archive,
    Verb::Multipart,
    Verb::Rearchive,
    Verb::Export,
    Verb::Check,
];

const fn row(settings: &'static str, told: &'static [Verb], note: &'static str) -> Row {
    Row { settings, told, note }
}

const fn plain(told: &'static [Verb], note: &'static str) -> Row {
    row("", told, note)
}

/// What must happen with that dialect.
pub(crate) const fn expected(dialect: Dialect) -> Row {
    const ORDER: &str = "Found out by one listing from beginning to end, which then serves instead of ranges of keys; \
                         `unordered` in the JSON line says so.";
    const NO_LISTING: &str =
        "Each command that has to see all keys ends with what the store did; the daemon lists nothing.";
    const AWAY: &str = "Waited out as if the store were away, then given up (ETIMEDOUT); the words name the answer.";
    const UNCHUNKED: &str = "Learned at the first body (`no-aws-chunked`): bodies go plain, their checksum in a header, \
                             for which files are read twice.";
    const LOOKS: &str = "Found out at the start: keys are looked at before each write (`no-conditional-writes`), and no \
                         other program may write below the prefix. `conditions = \"require\"` refuses the store.";
    match dialect {
        Dialect::RangeIgnored | Dialect::RangeIgnoredWithLength => plain(
            CHECK,
            "Learned at the first range (`ranges-ignored`): objects are read whole, on one connection each.",
        ),
        Dialect::RangeShifted => plain(
            &[Verb::Restore, Verb::Import, Verb::Check],
            "No range is believed: files above `part_size` are not restored (ETIMEDOUT), smaller ones are.",
        ),
        Dialect::Gunzipped => plain(&[], "`Accept-Encoding: identity` is sent."),
        Dialect::GunzippedAlways => plain(
            &[Verb::Import, Verb::ScrubDeep],
            "Such an object is refused (EIO), with the remedy: turn that off at the store. All others work.",
        ),
        Dialect::HtmlAnswers | Dialect::HtmlGateway => plain(Verb::ALL, AWAY),
        Dialect::EmptyListXml => plain(
            &[
                Verb::Import,
                Verb::Rebuild,
                Verb::Scrub,
                Verb::ScrubDeep,
                Verb::Check,
                Verb::Rebind,
            ],
            "A list of something else is no listing. The daemon lists nothing.",
        ),
        Dialect::NoBodyErrors => plain(&[], "The status alone counts then."),
        Dialect::ListShuffled | Dialect::ListDirectoryOrder | Dialect::ListIgnoresStartAfter => plain(CHECK, ORDER),
        Dialect::ListTruncatedNoToken
        | Dialect::ListRepeatsPage
        | Dialect::ListIgnoresToken
        | Dialect::ListBehindPrefix => plain(LISTINGS, NO_LISTING),
        Dialect::ListEmptyPages => plain(&[], "Pages go on until there is no token."),
        Dialect::ListNoDelimiter => plain(CHECK, "Ranges of keys are cut without a look at directories."),
        Dialect::IfMatchBare => plain(
            CHECK,
            "Learned at the first refusal (`if-match-without-quotes`), after a look that the object is the expected one.",
        ),
        Dialect::ETagBare | Dialect::ETagWeak => plain(&[], "ETags are compared without quotes and `W/`."),
        Dialect::ETagUpper => plain(
            CHECK,
            "Learned at the first answer (`etags-in-capitals`): kept in small letters, sent back in capitals.",
        ),
        Dialect::ETagOpaque => plain(
            CHECK,
            "Found out at the start (`etags-are-no-md5`): they prove nothing then. Imported objects are proved by the \
             store's checksums; where it has none either, that is said once.",
        ),
        Dialect::ChunkedRefused501 | Dialect::ChunkedRefused400 | Dialect::TrailingChecksum400 => {
            plain(CHECK, UNCHUNKED)
        }
        Dialect::ChunkedKept => plain(
            CHECK,
            "Seen by the object's size (`no-aws-chunked`): it is written once more, plain, before the archive ends.",
        ),
        Dialect::ChunkLimited16MiB | Dialect::ChunkLimitedSmall => plain(&[], "All chunks but the last have 8 MiB."),
        Dialect::NotImplementedTagging => row(
            "tags = 'project=x'\n",
            WRITES,
            "With `tags`: nothing is written (EINVAL), and restores go on. Without: everything works.",
        ),
        Dialect::NotImplementedAcl => row(
            "acl = 'bucket-owner-full-control'\n",
            WRITES,
            "With `acl`: nothing is written (EINVAL), and restores go on. Without: everything works.",
        ),
        Dialect::NoConditions501 | Dialect::ConditionsIgnored | Dialect::ConditionsIgnoredOnComplete => {
            plain(CHECK, LOOKS)
        }
        Dialect::ConditionsIgnoredOnDelete => plain(
            CHECK,
            "Found out at the start (`no-conditional-deletes`). Each delete is preceded by a look in any case.",
        ),
        Dialect::CopyConditionsIgnored => plain(
            CHECK,
            "`export --follow` moves nothing and changes no metadata; the daemon copies nothing.",
        ),
        Dialect::ChecksumMode400 => row(
            "checksum = 'none'\n",
            &[],
            "With `checksum = \"none\"` no header of checksums is sent: sizes and ETags prove the copies. Else EINVAL.",
        ),
        Dialect::NoChecksums => plain(
            CHECK,
            "Records keep our own CRC64NVME, and each object's size is looked at.",
        ),
        Dialect::CompositeOnly => plain(
            CHECK,
            "A checksum of parts is none of the object: records keep our own CRC64NVME, and the size is looked at.",
        ),
        Dialect::ChecksumDropped => plain(
            CHECK,
            "Records keep our own CRC64NVME; imported objects are proved by their ETag.",
        ),
        Dialect::TokenExpired400 => plain(
            &[],
            "The source of the credentials is asked at once, and the action goes on with what it gives.",
        ),
        Dialect::TimeSkewed400 => plain(Verb::ALL, AWAY),
        Dialect::RequesterPays => row(
            "requester_pays = true\n",
            &[],
            "With `requester_pays = true`. Else EACCES, and `check` names the setting.",
        ),
        Dialect::WrongRegion301 | Dialect::WrongRegion400 => plain(
            Verb::ALL,
            "Refused at the start, with the region that the store names: set it as `region`.",
        ),
        Dialect::MetadataLatin1 => plain(
            &[],
            "Bytes that are no UTF-8 are read as `%E9`; all else is taken as it is.",
        ),
        Dialect::Cold => plain(&[], "A thaw is asked for once and watched; the restore waits for it."),
        Dialect::TieringNoDays => plain(&[], "The thaw is asked for without Days."),
        Dialect::Expires => plain(
            &[Verb::Scrub, Verb::ScrubDeep, Verb::Check],
            "`scrub` and `check` name the day and the rule; `scrub --repair` makes such a copy anew.",
        ),
        Dialect::DirectoryBucket => plain(CHECK, ORDER),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_dialect_has_words_and_none_names_a_verb_twice() {
        for &dialect in Dialect::ALL {
            let row = expected(dialect);
            assert!(!row.note.is_empty() && !row.note.contains('|'), "{dialect:?}");
            let twice = |verb: &&Verb| row.told.iter().filter(|other| other == verb).count() > 1;
            assert_eq!(row.told.iter().find(twice), None, "{dialect:?}");
            assert!(row.settings.is_empty() || row.settings.ends_with('\n'), "{dialect:?}");
        }
    }
}

//! The dialects: what stores do that speak S3 a little differently, each with its name and its sentence.

/// The names and sentences stand beside the variants, so that none of the three can be forgotten.
macro_rules! dialects {
    ($($variant:ident, $name:literal, $about:literal;)*) => {
        /// One way in which stores depart from S3, as public reports tell of it.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        pub enum Dialect {
            $(
                #[doc = $about]
                $variant,
            )*
        }

        impl Dialect {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// Its name, in kebab-case.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }

            /// What the store does, exactly, in one sentence.
            #[must_use]
            pub const fn about(self) -> &'static str {
                match self {
                    $(Self::$variant => $about,)*
                }
            }
        }
    };
}

dialects! {
    RangeIgnored, "range-ignored",
        "A GET with Range is answered 200 with the whole object, chunked, without Content-Length and Content-Range.";
    RangeIgnoredWithLength, "range-ignored-with-length",
        "A GET with Range is answered 200 with the whole object and its Content-Length, without Content-Range.";
    RangeShifted, "range-shifted",
        "A GET with Range is answered 206 with as many bytes from the beginning, and Content-Range says so.";
    Gunzipped, "gunzipped",
        "An object with Content-Encoding gzip is sent decompressed unless Accept-Encoding names identity or gzip.";
    GunzippedAlways, "gunzipped-always",
        "An object with Content-Encoding gzip is sent decompressed, whatever Accept-Encoding says.";
    HtmlAnswers, "html-answers",
        "Each request is answered 200 with the text/html page of a captive proxy.";
    HtmlGateway, "html-gateway",
        "Each request is answered 502 with a text/html page.";
    EmptyListXml, "empty-list-xml",
        "ListObjectsV2 is answered 200 with an XML document whose root is ListAllMyBucketsResult.";
    NoBodyErrors, "no-body-errors",
        "An answer of 400 and above has neither body nor code.";
    ListShuffled, "list-shuffled",
        "ListObjectsV2 gives keys and common prefixes in a fixed order that is not bytes'; tokens are right.";
    ListDirectoryOrder, "list-directory-order",
        "ListObjectsV2 sorts by path components: 'obj/' comes before 'obj+'; tokens are right.";
    ListTruncatedNoToken, "list-truncated-no-token",
        "A page of ListObjectsV2 that is not the last says IsTruncated and has no NextContinuationToken.";
    ListEmptyPages, "list-empty-pages",
        "Every second page of ListObjectsV2 is empty and has a token.";
    ListRepeatsPage, "list-repeats-page",
        "The second token of ListObjectsV2 leads to the first page again, so that two pages go round.";
    ListIgnoresStartAfter, "list-ignores-start-after",
        "start-after is ignored by ListObjectsV2.";
    ListIgnoresToken, "list-ignores-token",
        "continuation-token is ignored by ListObjectsV2: the first page comes for ever, with the same token.";
    ListBehindPrefix, "list-behind-prefix",
        "ListObjectsV2 goes on behind the end of the prefix, to the end of the bucket.";
    ListNoDelimiter, "list-no-delimiter",
        "delimiter is ignored by ListObjectsV2: each key is listed and there are no common prefixes.";
    IfMatchBare, "if-match-bare",
        "If-Match with a quoted ETag is 412, without the quotes it is heeded, also for a copy's source.";
    ETagBare, "etag-bare",
        "ETags in answers have no quotes, in headers as in XML.";
    ETagUpper, "etag-upper",
        "ETags are in upper-case hexadecimal.";
    ETagWeak, "etag-weak",
        "ETags in answers are weak: W/\"...\".";
    ETagOpaque, "etag-opaque",
        "ETags have the form of an MD5 and are none of the bytes, as with SSE-KMS.";
    ChunkedRefused501, "chunked-refused-501",
        "An aws-chunked body is 501 NotImplemented.";
    ChunkedRefused400, "chunked-refused-400",
        "An aws-chunked body is 400 InvalidArgument.";
    ChunkLimited16MiB, "chunk-limited-16mib",
        "An aws-chunked chunk of more than 16 MiB is 400 InvalidRequest.";
    ChunkLimitedSmall, "chunk-limited-small",
        "An aws-chunked chunk of less than 8 KiB that is not the last is 400 InvalidChunkSizeError.";
    ChunkedKept, "chunked-kept",
        "The framing of an aws-chunked body is kept in the object or part, and checksums are not known.";
    TrailingChecksum400, "trailing-checksum-400",
        "A body with x-amz-trailer is 400 InvalidRequest.";
    NotImplementedTagging, "not-implemented-tagging",
        "A request with x-amz-tagging is 501 NotImplemented.";
    NotImplementedAcl, "not-implemented-acl",
        "A request with x-amz-acl is 501 NotImplemented.";
    NoConditions501, "no-conditions-501",
        "If-Match and If-None-Match on PUT, CompleteMultipartUpload and DELETE are 501 NotImplemented.";
    ConditionsIgnored, "conditions-ignored",
        "If-Match and If-None-Match are ignored on PUT, CompleteMultipartUpload and DELETE.";
    ConditionsIgnoredOnComplete, "conditions-ignored-on-complete",
        "If-Match and If-None-Match are heeded on PUT and ignored on CompleteMultipartUpload.";
    ConditionsIgnoredOnDelete, "conditions-ignored-on-delete",
        "If-Match is heeded on PUT and ignored on DELETE.";
    CopyConditionsIgnored, "copy-conditions-ignored",
        "The conditions of CopyObject are ignored, those on its source as those on its destination.";
    ChecksumMode400, "checksum-mode-400",
        "A request with x-amz-checksum-mode is 400 InvalidArgument.";
    NoChecksums, "no-checksums",
        "x-amz-checksum-* headers and trailers are accepted, not looked at, not kept and never returned.";
    CompositeOnly, "composite-only",
        "The checksum of a multipart object is always COMPOSITE; FULL_OBJECT is ignored where it is asked for.";
    ChecksumDropped, "checksum-dropped",
        "HEAD returns no checksum, with x-amz-checksum-mode neither; GET does.";
    TokenExpired400, "token-expired-400",
        "A key or session token that has expired is 400 ExpiredToken, on HEAD 400 without a body.";
    TimeSkewed400, "time-skewed-400",
        "Each request is 403 RequestTimeTooSkewed, on HEAD 400 without a body.";
    RequesterPays, "requester-pays",
        "A request without 'x-amz-request-payer: requester' is 403 AccessDenied.";
    WrongRegion301, "wrong-region-301",
        "A request that is signed for another region is 301 PermanentRedirect with x-amz-bucket-region.";
    WrongRegion400, "wrong-region-400",
        "A request that is signed for another region is 400 AuthorizationHeaderMalformed, which names the right one.";
    MetadataLatin1, "metadata-latin1",
        "Each object's metadata has one value more, 'author', with the byte 0xE9.";
    Cold, "cold",
        "Objects of the classes GLACIER and DEEP_ARCHIVE can't be read until a restore that was asked for is through.";
    TieringNoDays, "tiering-no-days",
        "RestoreObject of an object of the class INTELLIGENT_TIERING with Days is 400 InvalidArgument.";
    Expires, "expires",
        "Answers about an object have an x-amz-expiration of the past: those that were named, or all of them.";
    DirectoryBucket, "directory-bucket",
        "ETags are no MD5, ListObjectsV2 has no order, and start-after is 501 NotImplemented.";
}

//! `s3://BUCKET/PREFIX`.

use std::fmt;
use std::str::FromStr;

/// A place in a bucket.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Bucket {
    /// The bucket.
    pub name: String,
    /// As given, with `/` at its end unless it is empty.
    pub prefix: String,
}

impl FromStr for Bucket {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let rest = text
            .strip_prefix("s3://")
            .ok_or("must begin with s3://, as in s3://bucket/prefix")?;
        let (name, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        if name.is_empty() {
            return Err("names no bucket; give s3://bucket or s3://bucket/prefix".into());
        }
        let mut prefix = prefix.to_owned();
        if !prefix.is_empty() && !prefix.ends_with('/') {
            prefix.push('/');
        }
        Ok(Self {
            name: name.to_owned(),
            prefix,
        })
    }
}

impl fmt::Display for Bucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "s3://{}/{}", self.name, self.prefix)
    }
}

//! Files and what they must hold.

use std::io;
use std::path::{Path, PathBuf};

use lhsm_sandbox::Client;
use lhsm_sandbox::protocol::{Fid, states};

/// Splitmix64: a seed repeats a run's choices.
#[derive(Debug)]
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % n
    }
}

/// One file.
#[derive(Clone, Debug)]
pub(crate) struct Expected {
    pub(crate) path: PathBuf,
    pub(crate) fid: Fid,
    mark: u64,
    size: usize,
}

impl Expected {
    pub(crate) fn create(dir: &Path, name: &str, client: &mut Client, random: &mut Random) -> io::Result<Self> {
        let path = dir.join(name);
        let mut file = Self {
            fid: Fid::ZERO,
            path,
            mark: 0,
            size: 0,
        };
        file.write(random)?;
        file.fid = client.fid(&file.path)?;
        Ok(file)
    }

    /// New bytes; mostly a few, sometimes so many that they go in parts.
    pub(crate) fn write(&mut self, random: &mut Random) -> io::Result<()> {
        let size = match random.below(12) {
            0 => 0,
            1 => (5 << 20) + random.below(8 << 20),
            n => n * n * 1000 + random.below(1000),
        };
        self.size = usize::try_from(size).map_err(io::Error::other)?;
        self.mark = random.below(u64::MAX);
        std::fs::write(&self.path, self.content())
    }

    pub(crate) fn content(&self) -> Vec<u8> {
        let mut bytes = Random(self.mark);
        let mut content = vec![0; self.size];
        for chunk in content.chunks_mut(8) {
            let word = bytes.below(u64::MAX).to_le_bytes();
            chunk.copy_from_slice(word.get(..chunk.len()).unwrap_or_default());
        }
        content
    }

    pub(crate) fn is_released(&self, client: &mut Client) -> io::Result<bool> {
        Ok(client.state(self.fid)?.states & states::RELEASED != 0)
    }
}

//! Damage at rest, for tests: what a disk, a file system or a person does to
//! the files of a directory while nobody has them open.
//!
//! An [`Image`] is the directory as a value, so that each damage starts from
//! the same one: a table of (file × damage), and for each row one opening and
//! one verdict. Two outcomes are right: exactly what was acknowledged, or a
//! refusal that names the file and the way out.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::SECTOR;

/// Files of a directory tree by their paths, relative or not.
pub type Image = BTreeMap<PathBuf, Vec<u8>>;

/// One damage to one file.
#[derive(Clone, PartialEq, Eq)]
pub enum Damage {
    /// The bits of `mask` of one byte.
    Flip {
        offset: usize,
        mask: u8,
    },
    /// Shorter than it was.
    Cut(usize),
    /// One sector reads as zeros; `offset` is its beginning.
    LostSector {
        offset: usize,
    },
    Missing,
    /// Its bytes stand under another name, and the other's under its.
    SwappedWith(PathBuf),
    /// Its bytes stand under another name as well.
    CopiedTo(PathBuf),
    /// Other bytes stand in its place; the text says which.
    ReplacedBy(&'static str, Vec<u8>),
}

impl fmt::Debug for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Damage::Flip { offset, mask } => write!(f, "byte {offset} ^ {mask:#04x}"),
            Damage::Cut(len) => write!(f, "cut to {len} bytes"),
            Damage::LostSector { offset } => write!(f, "zeros in the sector at {offset}"),
            Damage::Missing => f.write_str("missing"),
            Damage::SwappedWith(other) => write!(f, "swapped with {}", other.display()),
            Damage::CopiedTo(other) => write!(f, "copied to {}", other.display()),
            Damage::ReplacedBy(what, _) => write!(f, "replaced by {what}"),
        }
    }
}

impl Damage {
    /// `image` with the damage done to `file`, which must be in it.
    pub fn done_to(&self, file: &Path, image: &Image) -> Image {
        let mut out = image.clone();
        let bytes = out.get_mut(file).expect("the file is in the image");
        match self {
            Damage::Flip { offset, mask } => bytes[*offset] ^= mask,
            Damage::Cut(len) => bytes.truncate(*len),
            Damage::LostSector { offset } => {
                let end = bytes.len().min(offset + SECTOR);
                bytes[*offset..end].fill(0);
            }
            Damage::Missing => drop(out.remove(file)),
            Damage::SwappedWith(other) => {
                let mine = out.remove(file).expect("looked up above");
                let theirs = out.insert(other.clone(), mine).expect("the other is in the image");
                out.insert(file.to_path_buf(), theirs);
            }
            Damage::CopiedTo(other) => {
                let copy = bytes.clone();
                out.insert(other.clone(), copy);
            }
            Damage::ReplacedBy(_, other) => bytes.clone_from(other),
        }
        out
    }
}

/// Each byte flipped in turn; of what bits, its place decides: one, or all.
pub fn flips(len: usize) -> impl Iterator<Item = Damage> {
    let mask = |at: usize| if at.is_multiple_of(3) { 0xff } else { 1 << (at % 8) };
    (0..len).map(move |offset| Damage::Flip { offset, mask: mask(offset) })
}

/// Each shorter length in turn, 0 among them.
pub fn cuts(len: usize) -> impl Iterator<Item = Damage> {
    (0..len).map(Damage::Cut)
}

/// Each sector lost in turn.
pub fn lost_sectors(len: usize) -> impl Iterator<Item = Damage> {
    (0..len).step_by(SECTOR).map(|offset| Damage::LostSector { offset })
}

/// Reads a directory tree; paths are relative to `dir`.
pub fn read_tree(dir: &Path) -> io::Result<Image> {
    fn visit(root: &Path, dir: &Path, out: &mut Image) -> io::Result<()> {
        for entry in fs::read_dir(dir)? {
            let (path, kind) = entry.map(|e| (e.path(), e.file_type()))?;
            if kind.as_ref().is_ok_and(fs::FileType::is_dir) {
                visit(root, &path, out)?;
            } else if kind?.is_file() {
                let name = path.strip_prefix(root).map_err(io::Error::other)?;
                out.insert(name.to_path_buf(), fs::read(&path)?);
            }
        }
        Ok(())
    }
    let mut out = Image::new();
    visit(dir, dir, &mut out)?;
    Ok(out)
}

/// Writes an image with relative paths into `dir`; what is zeros takes no space.
pub fn write_tree(dir: &Path, image: &Image) -> io::Result<()> {
    const BLOCK: usize = 64 << 10;
    for (path, bytes) in image {
        let path = dir.join(path);
        fs::create_dir_all(path.parent().unwrap_or(dir))?;
        let file = fs::File::create(path)?;
        file.set_len(bytes.len() as u64)?;
        for (n, block) in bytes.chunks(BLOCK).enumerate().filter(|(_, b)| b.iter().any(|b| *b != 0)) {
            file.write_all_at(block, (n * BLOCK) as u64)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_damage_changes_what_it_names_and_nothing_else() {
        let image: Image = [("a".into(), vec![1; 1000]), ("d/b".into(), vec![2; 10])].into();
        let a = Path::new("a");
        let done = |d: Damage| d.done_to(a, &image);
        assert_eq!(done(Damage::Flip { offset: 3, mask: 0xff })[a][..5], [1, 1, 1, 0xfe, 1]);
        assert_eq!(done(Damage::Cut(7))[a], [1; 7]);
        let lost = done(Damage::LostSector { offset: SECTOR });
        assert!(lost[a][..SECTOR].iter().all(|b| *b == 1) && lost[a][SECTOR..].iter().all(|b| *b == 0));
        assert!(!done(Damage::Missing).contains_key(a));
        let swapped = done(Damage::SwappedWith("d/b".into()));
        assert_eq!((swapped[a].len(), swapped[Path::new("d/b")].len()), (10, 1000));
        assert_eq!(done(Damage::CopiedTo("c".into())).len(), 3);
        assert_eq!(flips(16).filter(|d| *d != Damage::Missing).count(), 16);
        assert_eq!(cuts(2).collect::<Vec<_>>(), [Damage::Cut(0), Damage::Cut(1)]);
        assert_eq!(lost_sectors(1000).count(), 2);

        let dir = tempfile::tempdir().unwrap();
        write_tree(dir.path(), &image).unwrap();
        assert_eq!(read_tree(dir.path()).unwrap(), image);
    }
}

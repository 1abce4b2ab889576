//! Files swapped in as one, behind the symbolic link `..data`.
//!
//! ```text
//!   volume/..2026_11_21_07_00_00.1/a      the files
//!   volume/..data ─► ..2026_11_21_07_00_00.1   renamed over at one stroke
//!   volume/a ─► ..data/a                  what a container opens
//! ```
//! Nothing is written when the files are what is there already, so watchers in
//! containers are woken only by changes.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use crate::plan::{File, Files};

const LINK: &str = "..data";
const NEXT: &str = "..data_tmp";

/// Makes `dir` hold `files`, readable by `group` when one is given; says
/// whether anything was written. `stamp` names the new folder (a time).
pub fn write(dir: &Path, files: &Files, group: Option<u32>, stamp: &str) -> io::Result<bool> {
    let link = dir.join(LINK);
    let old = fs::read_link(&link).ok().filter(|t| !t.as_os_str().is_empty());
    if let Some(old) = &old
        && same(&dir.join(old), files, group)
    {
        return Ok(false);
    }
    let mut name = format!("..{stamp}");
    for n in 1.. {
        if !dir.join(&name).exists() {
            break;
        }
        name = format!("..{stamp}.{n}");
    }
    let fresh = dir.join(&name);
    fs::create_dir(&fresh)?;
    fs::set_permissions(&fresh, fs::Permissions::from_mode(0o755))?;
    for (path, file) in files {
        let target = fresh.join(path);
        if let Some(parent) = target.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::write(&target, &file.data)?;
        own(&target, group)?;
        fs::set_permissions(&target, fs::Permissions::from_mode(mode(file, group)))?;
    }
    let next = dir.join(NEXT);
    let _ = fs::remove_file(&next);
    symlink(&name, &next)?;
    fs::rename(&next, &link)?;
    let tops: BTreeSet<&str> = files.keys().map(|p| p.split('/').next().unwrap_or(p)).collect();
    for top in &tops {
        let visible = dir.join(top);
        if fs::symlink_metadata(&visible).is_err() {
            symlink(Path::new(LINK).join(top), &visible)?;
        }
    }
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let file_name = entry.file_name();
        let Some(text) = file_name.to_str() else { continue };
        let stale = match text.starts_with("..") {
            true => text != LINK && text != name,
            false => !tops.contains(text),
        };
        if stale {
            let path = entry.path();
            let _ = if entry.file_type()?.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
        }
    }
    Ok(true)
}

/// A group reads what the owner reads.
fn mode(file: &File, group: Option<u32>) -> u32 {
    if group.is_some() { file.mode | 0o440 } else { file.mode }
}

fn own(path: &Path, group: Option<u32>) -> io::Result<()> {
    match group {
        Some(gid) => std::os::unix::fs::chown(path, None, Some(gid)),
        None => Ok(()),
    }
}

fn same(dir: &Path, files: &Files, group: Option<u32>) -> bool {
    let mut found = 0;
    count(dir, &mut found);
    found == files.len()
        && files.iter().all(|(path, file)| {
            let target = dir.join(path);
            let mode_is = fs::metadata(&target).map(|m| m.permissions().mode() & 0o777).unwrap_or(0);
            mode_is == mode(file, group) && fs::read(&target).is_ok_and(|data| data == file.data)
        })
}

fn count(dir: &Path, found: &mut usize) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        match entry.file_type() {
            Ok(t) if t.is_dir() => count(&entry.path(), found),
            _ => *found += 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(list: &[(&str, &str)]) -> Files {
        list.iter().map(|(p, d)| ((*p).to_owned(), File { data: d.as_bytes().to_vec(), mode: 0o644 })).collect()
    }

    fn visible(dir: &Path) -> Vec<String> {
        let names =
            fs::read_dir(dir).expect("reads").map(|e| e.expect("reads").file_name().into_string().expect("text"));
        let mut names: Vec<_> = names.filter(|n| !n.starts_with("..")).collect();
        names.sort();
        names
    }

    #[test]
    fn a_new_set_replaces_the_old_one_and_leaves_nothing_behind() {
        let dir = tempfile::tempdir().expect("a folder");
        let d = dir.path();
        assert!(write(d, &files(&[("a", "1"), ("x/y", "2")]), None, "t1").expect("writes"));
        assert_eq!(fs::read(d.join("x/y")).expect("reads"), b"2");
        assert!(!write(d, &files(&[("a", "1"), ("x/y", "2")]), None, "t2").expect("writes"), "no change, no write");
        assert!(write(d, &files(&[("a", "3"), ("b", "4")]), None, "t1").expect("writes"));
        assert_eq!(visible(d), ["a", "b"]);
        assert_eq!(fs::read(d.join("a")).expect("reads"), b"3");
        let hidden = fs::read_dir(d).expect("reads").count() - 2;
        assert_eq!(hidden, 2, "the link and one folder");
        assert!(fs::symlink_metadata(d.join("a")).expect("there").is_symlink());
    }

    #[test]
    fn an_open_reader_of_the_link_sees_one_set_or_the_other() {
        let dir = tempfile::tempdir().expect("a folder");
        write(dir.path(), &files(&[("a", "1"), ("b", "1")]), None, "t1").expect("writes");
        let before = fs::canonicalize(dir.path().join(LINK)).expect("resolves");
        write(dir.path(), &files(&[("a", "2"), ("b", "2")]), None, "t2").expect("writes");
        let after = fs::canonicalize(dir.path().join(LINK)).expect("resolves");
        assert_ne!(before, after);
        assert_eq!(
            (fs::read(after.join("a")).expect("a"), fs::read(after.join("b")).expect("b")),
            (b"2".to_vec(), b"2".to_vec())
        );
    }
}

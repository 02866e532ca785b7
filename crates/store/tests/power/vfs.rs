//! Lets SQLite use a [`Disk`] as its file system. Nothing but translation.

use std::{
    collections::BTreeMap,
    ffi::{CStr, c_char, c_int, c_void},
    io,
    path::{Path, PathBuf},
    ptr,
    sync::{Arc, Mutex, Once},
};

use rusqlite::ffi;

use crate::disk::{Disk, Failure};

/// Name under which the VFS is registered.
const NAME: &CStr = c"skiff-power-test";

/// Disks by the directory that they stand for.
static DISKS: Mutex<BTreeMap<PathBuf, Arc<Disk>>> = Mutex::new(BTreeMap::new());

/// Makes `disk` the file system under `directory`, and says how to use it.
pub(crate) fn mount(directory: &Path, disk: Arc<Disk>) -> store::Vfs {
    static REGISTER: Once = Once::new();
    REGISTER.call_once(register);
    DISKS.lock().unwrap().insert(directory.to_owned(), disk);
    store::Vfs { name: NAME.to_str().unwrap().to_owned(), rewrite }
}

pub(crate) fn unmount(directory: &Path) {
    DISKS.lock().unwrap().remove(directory);
}

fn find(path: &Path) -> Option<(Arc<Disk>, String)> {
    let disk = DISKS.lock().unwrap().get(path.parent()?)?.clone();
    Some((disk, path.file_name()?.to_str()?.to_owned()))
}

fn rewrite(path: &Path) -> io::Result<()> {
    let (disk, name) = find(path).ok_or(io::ErrorKind::NotFound)?;
    disk.rewrite(&name).map_err(|_| io::Error::other("injected"))
}

/// An open file, as SQLite allocates it.
#[repr(C)]
struct Handle {
    base: ffi::sqlite3_file,
    /// Made by the opening, freed by the closing.
    file: *mut (Arc<Disk>, String),
}

fn register() {
    let vfs = Box::leak(Box::new(ffi::sqlite3_vfs {
        iVersion: 1,
        szOsFile: size_of::<Handle>() as c_int,
        mxPathname: 1024,
        pNext: ptr::null_mut(),
        zName: NAME.as_ptr(),
        pAppData: ptr::null_mut(),
        xOpen: Some(open),
        xDelete: Some(delete),
        xAccess: Some(access),
        xFullPathname: Some(full_path),
        xDlOpen: None,
        xDlError: None,
        xDlSym: None,
        xDlClose: None,
        xRandomness: Some(randomness),
        xSleep: Some(sleep),
        xCurrentTime: Some(current_time),
        xGetLastError: None,
        xCurrentTimeInt64: None,
        xSetSystemCall: None,
        xGetSystemCall: None,
        xNextSystemCall: None,
    }));
    // SAFETY: the structure is complete for its version and lives for ever.
    let code = unsafe { ffi::sqlite3_vfs_register(vfs, 0) };
    assert_eq!(code, ffi::SQLITE_OK);
}

static METHODS: ffi::sqlite3_io_methods = ffi::sqlite3_io_methods {
    iVersion: 1,
    xClose: Some(close),
    xRead: Some(read),
    xWrite: Some(write),
    xTruncate: Some(truncate),
    xSync: Some(sync),
    xFileSize: Some(file_size),
    xLock: Some(lock),
    xUnlock: Some(lock),
    xCheckReservedLock: Some(check_reserved_lock),
    xFileControl: Some(file_control),
    xSectorSize: Some(sector_size),
    xDeviceCharacteristics: Some(device_characteristics),
    xShmMap: None,
    xShmLock: None,
    xShmBarrier: None,
    xShmUnmap: None,
    xFetch: None,
    xUnfetch: None,
};

fn code(result: Result<(), Failure>, io: c_int) -> c_int {
    match result {
        Ok(()) => ffi::SQLITE_OK,
        Err(Failure::Full) => ffi::SQLITE_FULL,
        Err(Failure::Io) => io,
    }
}

/// The disk and the file name of a path.
///
/// # Safety
/// `name` is a C string.
unsafe fn locate(name: *const c_char) -> Option<(Arc<Disk>, String)> {
    // SAFETY: as promised by the caller.
    let name = unsafe { CStr::from_ptr(name) };
    find(Path::new(name.to_str().ok()?))
}

/// The disk and the name of an open file.
///
/// # Safety
/// `file` was opened by [`open`] and is not closed.
unsafe fn opened<'a>(file: *mut ffi::sqlite3_file) -> &'a (Arc<Disk>, String) {
    // SAFETY: then it is a Handle whose pointer is valid until the closing.
    unsafe { &*(*file.cast::<Handle>()).file }
}

unsafe extern "C" fn open(
    _: *mut ffi::sqlite3_vfs,
    name: *const c_char,
    file: *mut ffi::sqlite3_file,
    flags: c_int,
    out_flags: *mut c_int,
) -> c_int {
    // SAFETY: SQLite passes room for a Handle, and a name or nothing; without
    // methods it does not close the file.
    unsafe {
        (*file).pMethods = ptr::null();
        let Some((disk, name)) = (!name.is_null()).then(|| locate(name)).flatten() else {
            return ffi::SQLITE_CANTOPEN;
        };
        disk.open(&name);
        let handle = file.cast::<Handle>();
        (*handle).file = Box::into_raw(Box::new((disk, name)));
        (*handle).base.pMethods = &raw const METHODS;
        if !out_flags.is_null() {
            *out_flags = flags;
        }
    }
    ffi::SQLITE_OK
}

unsafe extern "C" fn close(file: *mut ffi::sqlite3_file) -> c_int {
    // SAFETY: SQLite closes what it opened, once.
    drop(unsafe { Box::from_raw((*file.cast::<Handle>()).file) });
    ffi::SQLITE_OK
}

unsafe extern "C" fn read(
    file: *mut ffi::sqlite3_file,
    buffer: *mut c_void,
    amount: c_int,
    offset: ffi::sqlite3_int64,
) -> c_int {
    // SAFETY: the file is open, and the buffer has room for the amount.
    let ((disk, name), buffer) = unsafe {
        let buffer = std::slice::from_raw_parts_mut(buffer.cast::<u8>(), amount as usize);
        (opened(file), buffer)
    };
    match disk.read(name, offset as usize, buffer) {
        Ok(length) if length == buffer.len() => ffi::SQLITE_OK,
        Ok(length) => {
            buffer[length..].fill(0);
            ffi::SQLITE_IOERR_SHORT_READ
        }
        Err(_) => ffi::SQLITE_IOERR_READ,
    }
}

unsafe extern "C" fn write(
    file: *mut ffi::sqlite3_file,
    data: *const c_void,
    amount: c_int,
    offset: ffi::sqlite3_int64,
) -> c_int {
    // SAFETY: the file is open, and the data has that amount.
    let ((disk, name), data) =
        unsafe { (opened(file), std::slice::from_raw_parts(data.cast::<u8>(), amount as usize)) };
    code(disk.write(name, offset as usize, data), ffi::SQLITE_IOERR_WRITE)
}

unsafe extern "C" fn truncate(file: *mut ffi::sqlite3_file, size: ffi::sqlite3_int64) -> c_int {
    // SAFETY: the file is open.
    let (disk, name) = unsafe { opened(file) };
    code(disk.truncate(name, size as usize), ffi::SQLITE_IOERR_TRUNCATE)
}

unsafe extern "C" fn sync(file: *mut ffi::sqlite3_file, _: c_int) -> c_int {
    // SAFETY: the file is open.
    let (disk, name) = unsafe { opened(file) };
    code(disk.sync(name), ffi::SQLITE_IOERR_FSYNC)
}

unsafe extern "C" fn file_size(
    file: *mut ffi::sqlite3_file,
    size: *mut ffi::sqlite3_int64,
) -> c_int {
    // SAFETY: the file is open, and the size may be written.
    unsafe {
        let (disk, name) = opened(file);
        *size = disk.size(name) as ffi::sqlite3_int64;
    }
    ffi::SQLITE_OK
}

unsafe extern "C" fn lock(_: *mut ffi::sqlite3_file, _: c_int) -> c_int {
    ffi::SQLITE_OK
}

unsafe extern "C" fn check_reserved_lock(_: *mut ffi::sqlite3_file, out: *mut c_int) -> c_int {
    // SAFETY: SQLite passes a place for the answer.
    unsafe { *out = 0 };
    ffi::SQLITE_OK
}

unsafe extern "C" fn file_control(_: *mut ffi::sqlite3_file, _: c_int, _: *mut c_void) -> c_int {
    ffi::SQLITE_NOTFOUND
}

unsafe extern "C" fn sector_size(_: *mut ffi::sqlite3_file) -> c_int {
    512
}

unsafe extern "C" fn device_characteristics(_: *mut ffi::sqlite3_file) -> c_int {
    // What SQLite assumes of Unix files.
    ffi::SQLITE_IOCAP_POWERSAFE_OVERWRITE
}

unsafe extern "C" fn delete(_: *mut ffi::sqlite3_vfs, name: *const c_char, _: c_int) -> c_int {
    // SAFETY: SQLite passes a name.
    match unsafe { locate(name) } {
        Some((disk, name)) if disk.exists(&name) => {
            code(disk.delete(&name), ffi::SQLITE_IOERR_DELETE)
        }
        _ => ffi::SQLITE_IOERR_DELETE_NOENT,
    }
}

unsafe extern "C" fn access(
    _: *mut ffi::sqlite3_vfs,
    name: *const c_char,
    _: c_int,
    out: *mut c_int,
) -> c_int {
    // SAFETY: SQLite passes a name, and a place for the answer.
    unsafe {
        *out = c_int::from(locate(name).is_some_and(|(disk, name)| disk.exists(&name)));
    }
    ffi::SQLITE_OK
}

unsafe extern "C" fn full_path(
    _: *mut ffi::sqlite3_vfs,
    name: *const c_char,
    room: c_int,
    out: *mut c_char,
) -> c_int {
    // SAFETY: SQLite passes a name, and room for that many bytes.
    unsafe {
        let bytes = CStr::from_ptr(name).to_bytes_with_nul();
        if bytes.len() > room as usize {
            return ffi::SQLITE_CANTOPEN;
        }
        ptr::copy_nonoverlapping(bytes.as_ptr(), out.cast::<u8>(), bytes.len());
    }
    ffi::SQLITE_OK
}

unsafe extern "C" fn randomness(
    _: *mut ffi::sqlite3_vfs,
    amount: c_int,
    out: *mut c_char,
) -> c_int {
    // SAFETY: SQLite passes room for that many bytes.
    let out = unsafe { std::slice::from_raw_parts_mut(out.cast::<u8>(), amount as usize) };
    rand::fill(out);
    amount
}

unsafe extern "C" fn sleep(_: *mut ffi::sqlite3_vfs, microseconds: c_int) -> c_int {
    microseconds
}

unsafe extern "C" fn current_time(_: *mut ffi::sqlite3_vfs, out: *mut f64) -> c_int {
    // SAFETY: SQLite passes a place for the answer. Nothing depends on it.
    unsafe { *out = 2_461_000.5 };
    ffi::SQLITE_OK
}

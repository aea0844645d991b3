//! A warm compiler's code on huge pages.
//!
//! A fork does not inherit the page tables of a mapped file: each job of a compiler would find its code in the page
//! cache again, 64 KiB at a time, and walk it by pages of 4 KiB. Memory of the compiler's own it has at once, and
//! from huge pages with few entries of the processor's translation buffer.
#![allow(unsafe_code, reason = "an interface of C on every side")]

use core::ffi::{c_char, c_int, c_void};
use core::ptr;
use core::slice;

/// glibc's `struct dl_phdr_info`, as far as it is used.
#[repr(C)]
struct Object {
    base: usize,
    name: *const c_char,
    segments: *const Segment,
    segment_count: u16,
}

/// `Elf64_Phdr` (elf(5)).
#[repr(C)]
struct Segment {
    kind: u32,
    flags: u32,
    offset: u64,
    address: usize,
    physical: usize,
    file_size: usize,
    size: usize,
    alignment: usize,
}

type Visitor = unsafe extern "C" fn(*const Object, usize, *mut c_void) -> c_int;

unsafe extern "C" {
    fn dl_iterate_phdr(visitor: Visitor, data: *mut c_void) -> c_int;
    fn madvise(at: *mut c_void, size: usize, advice: c_int) -> c_int;
    fn mprotect(at: *mut c_void, size: usize, protection: c_int) -> c_int;
    fn mremap(at: *mut c_void, old: usize, new: usize, flags: c_int, ...) -> *mut c_void;
}

const PT_LOAD: u32 = 1;
const READ_EXECUTE: u32 = 5;
const PROT_READ_EXECUTE: c_int = 5;
const MADV_HUGEPAGE: c_int = 14;
const MREMAP_MAYMOVE_FIXED: c_int = 3;

/// The size of a huge page of x86-64.
const HUGE: usize = 2 << 20;

/// Moves the code of all large libraries. What cannot be moved stays where it is.
///
/// # Safety
/// There is one thread.
pub(super) unsafe fn on_huge_pages() {
    // Others than x86-64 would have to be told of new code in memory.
    if cfg!(target_arch = "x86_64") {
        // SAFETY: the visitor takes what glibc gives.
        unsafe { dl_iterate_phdr(visit, ptr::null_mut()) };
    }
}

unsafe extern "C" fn visit(object: *const Object, _: usize, _: *mut c_void) -> c_int {
    // SAFETY: glibc's description of a loaded object.
    unsafe {
        let segments =
            slice::from_raw_parts((*object).segments, usize::from((*object).segment_count));
        for segment in segments {
            if segment.kind == PT_LOAD && segment.flags == READ_EXECUTE {
                let at = (*object).base + segment.address;
                let first = at.next_multiple_of(HUGE);
                let end = (at + segment.size) / HUGE * HUGE;
                if first < end {
                    replace(first as *mut c_void, end - first);
                }
            }
        }
    }
    0
}

/// Puts a copy in the place of `size` bytes of code.
unsafe fn replace(code: *mut c_void, size: usize) {
    let room_size = size + HUGE;
    // SAFETY: the copy is finished and executable before it takes the code's place, in one call; whatever of the room
    // is left then is nobody's. Should the kernel have no memory in the middle of that call, this process crashes, and
    // its jobs are started as if it had never been there.
    unsafe {
        let room = super::mmap(
            ptr::null_mut(),
            room_size,
            super::PROT_READ_WRITE,
            super::MAP_PRIVATE_ANONYMOUS,
            -1,
            0,
        );
        if room as isize == -1 {
            return;
        }
        let copy = (room as usize).next_multiple_of(HUGE) as *mut c_void;
        madvise(copy, size, MADV_HUGEPAGE);
        ptr::copy_nonoverlapping(code.cast::<u8>(), copy.cast::<u8>(), size);
        if mprotect(copy, size, PROT_READ_EXECUTE) == 0 {
            mremap(copy, size, size, MREMAP_MAYMOVE_FIXED, code);
        }
        super::munmap(room, room_size);
    }
}

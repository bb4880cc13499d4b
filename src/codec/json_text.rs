//! What reader and writer of JSON look for in texts.

const TAGS: [&[u8]; 3] = [b"bytes", b"datetime", b"float"];

/// How many `$` come before the name of a tag; 0 where the key is any other.
pub fn dollars(key: &[u8]) -> usize {
    let count = key.iter().take_while(|&&byte| byte == b'$').count();
    if TAGS.contains(&&key[count..]) {
        count
    } else {
        0
    }
}

#[inline]
pub fn is_special(byte: u8) -> bool {
    (byte < b' ') | (byte == b'"') | (byte == b'\\')
}

/// The first quote, backslash or control character from `at` on, or the end.
#[inline]
pub fn plain_until(data: &[u8], mut at: usize) -> usize {
    while let Some(chunk) = data.get(at..).and_then(|rest| rest.first_chunk()) {
        let found = first_special(chunk);
        at += found;
        if found < STRIDE {
            return at;
        }
    }
    while at < data.len() && !is_special(data[at]) {
        at += 1;
    }
    at
}

pub const STRIDE: usize = 16;

/// Where the first of them is in so many bytes; `STRIDE` where there is none.
#[cfg(target_arch = "x86_64")]
#[inline]
pub fn first_special(chunk: &[u8; STRIDE]) -> usize {
    use std::arch::x86_64::{
        _mm_cmpeq_epi8, _mm_loadu_si128, _mm_max_epu8, _mm_movemask_epi8, _mm_or_si128,
        _mm_set1_epi8,
    };
    // SAFETY: every x86-64 has SSE2; the pointer is to sixteen bytes, and need not be aligned.
    let mask = unsafe {
        let bytes = _mm_loadu_si128(chunk.as_ptr().cast());
        let last_control = _mm_set1_epi8(0x1f);
        let control = _mm_cmpeq_epi8(_mm_max_epu8(bytes, last_control), last_control);
        let quote = _mm_cmpeq_epi8(bytes, _mm_set1_epi8(b'"' as i8));
        let backslash = _mm_cmpeq_epi8(bytes, _mm_set1_epi8(b'\\' as i8));
        _mm_movemask_epi8(_mm_or_si128(control, _mm_or_si128(quote, backslash)))
    };
    ((mask | 1 << STRIDE).trailing_zeros()) as usize
}

#[cfg(not(target_arch = "x86_64"))]
#[inline]
pub fn first_special(chunk: &[u8; STRIDE]) -> usize {
    let special = |found: bool, &byte: &u8| found | is_special(byte);
    if chunk.iter().fold(false, special) {
        return chunk
            .iter()
            .position(|&byte| is_special(byte))
            .unwrap_or(STRIDE);
    }
    STRIDE
}

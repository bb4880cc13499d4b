//! Numbers, dates and bytes as text.

/// Whether the text has the form that `datetime.isoformat()` writes; whether there is such a day is not asked.
pub fn is_datetime(text: &[u8]) -> bool {
    let Some((stamp, rest)) = text.split_at_checked(19) else {
        return false;
    };
    let rest = fraction(rest);
    follows(stamp, b"0000-00-00T00:00:00")
        && match rest.split_first() {
            None => true,
            Some((b'+' | b'-', zone)) => {
                let (hours, rest) = zone.split_at_checked(5).unwrap_or((&[], zone));
                let seconds = rest.split_at_checked(3);
                follows(hours, b"00:00")
                    && match seconds {
                        None => rest.is_empty(),
                        Some((seconds, rest)) => {
                            follows(seconds, b":00") && fraction(rest).is_empty()
                        }
                    }
            }
            Some(_) => false,
        }
}

/// What comes after six decimals, where there are any.
fn fraction(text: &[u8]) -> &[u8] {
    match text.split_at_checked(7) {
        Some((decimals, rest)) if follows(decimals, b".000000") => rest,
        _ => text,
    }
}

/// A digit for each zero, the other characters as they are.
fn follows(text: &[u8], form: &[u8]) -> bool {
    text.len() == form.len()
        && text.iter().zip(form).all(|(found, wanted)| match wanted {
            b'0' => found.is_ascii_digit(),
            other => found == other,
        })
}

/// A finite number as Python's `repr` writes it: the fewest digits that read back the same.
pub fn write_float(value: f64, out: &mut Vec<u8>) {
    let mut buffer = ryu::Buffer::new();
    let text = buffer.format_finite(value).as_bytes();
    let small = text.strip_prefix(b"-").unwrap_or(text);
    if !text.contains(&b'e') && !small.starts_with(b"0.0000") {
        return out.extend_from_slice(text);
    }
    write_exponent(value, out);
}

/// The same, with an exponent where `repr` has one.
fn write_exponent(value: f64, out: &mut Vec<u8>) {
    use std::io::Write;
    let mut buffer = [0u8; 32];
    let mut rest = &mut buffer[..];
    // As -d.ddde-dd, which always fits.
    let _ = write!(rest, "{value:e}");
    let left = rest.len();
    let text = &buffer[..buffer.len() - left];
    let (negative, text) = match text.split_first() {
        Some((b'-', text)) => (true, text),
        _ => (false, text),
    };
    let split = text
        .iter()
        .position(|&byte| byte == b'e')
        .unwrap_or(text.len());
    let exponent: i32 = std::str::from_utf8(text.get(split + 1..).unwrap_or_default())
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or_default();
    let mut kept = [0u8; 24];
    let mut length = 0;
    for &byte in text[..split].iter().filter(|&&byte| byte != b'.') {
        kept[length] = byte;
        length += 1;
    }
    let digits = &kept[..length];
    if negative {
        out.push(b'-');
    }
    let point = exponent + 1; // so many digits stand before it
    let count = digits.len() as i32;
    if !(-3..=16).contains(&point) {
        out.push(digits[0]);
        if count > 1 {
            out.push(b'.');
            out.extend_from_slice(&digits[1..]);
        }
        let sign = if exponent < 0 { '-' } else { '+' };
        let _ = write!(out, "e{sign}{:02}", exponent.abs());
    } else if point <= 0 {
        out.extend_from_slice(b"0.");
        out.extend(std::iter::repeat_n(b'0', -point as usize));
        out.extend_from_slice(digits);
    } else if point >= count {
        out.extend_from_slice(digits);
        out.extend(std::iter::repeat_n(b'0', (point - count) as usize));
        out.extend_from_slice(b".0");
    } else {
        out.extend_from_slice(&digits[..point as usize]);
        out.push(b'.');
        out.extend_from_slice(&digits[point as usize..]);
    }
}

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Base64 with padding, RFC 4648 section 4.
pub fn write_base64(bytes: &[u8], out: &mut Vec<u8>) {
    out.reserve(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let group = [
            chunk[0],
            *chunk.get(1).unwrap_or(&0),
            *chunk.get(2).unwrap_or(&0),
        ];
        let bits = u32::from_be_bytes([0, group[0], group[1], group[2]]);
        for place in 0..4 {
            out.push(if place <= chunk.len() {
                ALPHABET[(bits >> (18 - 6 * place)) as usize & 63]
            } else {
                b'='
            });
        }
    }
}

/// None where it is not base64 as `write_base64` writes it: padded, nothing else in it, no bits left over.
pub fn read_base64(text: &[u8]) -> Option<Vec<u8>> {
    if text.len() % 4 != 0 {
        return None;
    }
    let padding = text.iter().rev().take_while(|&&byte| byte == b'=').count();
    if padding > 2 {
        return None;
    }
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    let digits = &text[..text.len() - padding];
    for chunk in digits.chunks(4) {
        let mut bits = 0u32;
        for &byte in chunk {
            bits = bits << 6 | u32::from(digit(byte)?);
        }
        bits <<= 6 * (4 - chunk.len());
        let [_, group @ ..] = bits.to_be_bytes();
        let (kept, over) = group.split_at(chunk.len() * 6 / 8);
        if over.iter().any(|&byte| byte != 0) {
            return None;
        }
        bytes.extend_from_slice(kept);
    }
    Some(bytes)
}

fn digit(byte: u8) -> Option<u8> {
    Some(match byte {
        b'A'..=b'Z' => byte - b'A',
        b'a'..=b'z' => byte - b'a' + 26,
        b'0'..=b'9' => byte - b'0' + 52,
        b'+' => 62,
        b'/' => 63,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_are_written_as_python_writes_them() {
        for (value, expected) in [
            (0.0, "0.0"),
            (-0.0, "-0.0"),
            (1.0, "1.0"),
            (0.1, "0.1"),
            (-1234.5, "-1234.5"),
            (1e15, "1000000000000000.0"),
            (1e16, "1e+16"),
            (123456789012345680.0, "1.2345678901234568e+17"),
            (0.0001, "0.0001"),
            (0.00001, "1e-05"),
            (5e-324, "5e-324"),
            (f64::MAX, "1.7976931348623157e+308"),
            (9007199254740993.0, "9007199254740992.0"),
            (9999999999999998.0, "9999999999999998.0"),
            (-0.000123, "-0.000123"),
            (-0.0000123, "-1.23e-05"),
            (12345678901234567.0, "1.2345678901234568e+16"),
        ] {
            let mut out = Vec::new();
            write_float(value, &mut out);
            assert_eq!(String::from_utf8(out).unwrap(), expected);
        }
    }

    #[test]
    fn datetimes_have_one_form() {
        for good in [
            "2026-01-02T03:04:05",
            "2026-01-02T03:04:05.678901",
            "2026-01-02T03:04:05+00:00",
            "2026-01-02T03:04:05.678901-11:30",
            "2026-01-02T03:04:05+01:02:03",
            "2026-01-02T03:04:05+01:02:03.000004",
        ] {
            assert!(is_datetime(good.as_bytes()), "{good}");
        }
        for bad in [
            "",
            "2026-01-02",
            "2026-01-02 03:04:05",
            "2026-01-02T03:04:05Z",
            "2026-01-02T03:04:05.678",
            "2026-01-02T03:04:05+00",
            "2026-01-02T03:04:05+00:00:0",
            "2026-01-02T03:04:05+",
        ] {
            assert!(!is_datetime(bad.as_bytes()), "{bad}");
        }
    }

    #[test]
    fn base64_reads_back() {
        for bytes in [&b""[..], b"f", b"fo", b"foo", b"\xff\xfe\xfd\xfc"] {
            let mut out = Vec::new();
            write_base64(bytes, &mut out);
            assert_eq!(read_base64(&out).as_deref(), Some(bytes));
        }
        for bad in ["A", "A===", "AB==", "AA=A", "A*==", "====", "AA\n="] {
            assert_eq!(read_base64(bad.as_bytes()), None, "{bad}");
        }
    }
}

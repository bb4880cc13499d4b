//! Products of vectors: the inner loops of a search.
//!
//! Each is one plain loop that LLVM vectorises, compiled once for any processor and once for one with AVX2 and FMA, which
//! is chosen at run time: wheels are built for the oldest x86-64, whose vectors are a quarter as wide.

/// How many sums run side by side, so that no addition waits for the one before.
const LANES: usize = 32;

#[inline(always)]
fn dot_loop(a: &[f32], b: &[f32], fused: bool) -> f32 {
    let mut sums = [0f32; LANES];
    let (left, right) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
    let tail: f32 = left
        .remainder()
        .iter()
        .zip(right.remainder())
        .map(|(x, y)| x * y)
        .sum();
    for (x, y) in left.zip(right) {
        for lane in 0..LANES {
            sums[lane] = if fused {
                x[lane].mul_add(y[lane], sums[lane])
            } else {
                sums[lane] + x[lane] * y[lane]
            };
        }
    }
    sums.iter().sum::<f32>() + tail
}

#[inline(always)]
fn distance_loop(a: &[f32], b: &[f32]) -> f32 {
    let mut sums = [0f32; LANES];
    let (left, right) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
    let tail: f32 = left
        .remainder()
        .iter()
        .zip(right.remainder())
        .map(|(x, y)| (x - y) * (x - y))
        .sum();
    for (x, y) in left.zip(right) {
        for lane in 0..LANES {
            let apart = x[lane] - y[lane];
            sums[lane] += apart * apart;
        }
    }
    sums.iter().sum::<f32>() + tail
}

/// At most 65,536 codes from -127 to 127, so that the sum fits.
#[inline(always)]
fn code_loop(a: &[i8], b: &[i8]) -> i32 {
    a.iter()
        .zip(b)
        .map(|(x, y)| i32::from(*x) * i32::from(*y))
        .sum()
}

/// Added to a number of less than 2^51 it leaves the nearest whole number in the lowest bits: rounding as an addition,
/// which vectorises.
const ROUNDING: f64 = 6_755_399_441_055_744.0;

/// The sum of the squares, and the largest number without its sign.
#[inline(always)]
fn extent_loop(vector: &[f32]) -> (f64, f32) {
    let (mut sums, mut most) = ([0f64; 8], [0f32; 8]);
    let eights = vector.chunks_exact(8);
    for (lane, x) in eights.remainder().iter().enumerate() {
        sums[lane] += f64::from(*x) * f64::from(*x);
        most[lane] = most[lane].max(x.abs());
    }
    for eight in eights {
        for lane in 0..8 {
            sums[lane] += f64::from(eight[lane]) * f64::from(eight[lane]);
            most[lane] = most[lane].max(eight[lane].abs());
        }
    }
    (
        sums.iter().sum(),
        most.iter().fold(0f32, |most, x| most.max(*x)),
    )
}

/// Writes the codes; gives the sum of the squares of what they leave out. `to_code` makes the largest number 127.
#[inline(always)]
fn coding_loop(vector: &[f32], made_one: f64, to_code: f64, scale: f64, codes: &mut [i8]) -> f64 {
    let mut lost = [0f64; 8];
    let code = |x: f32, lost: &mut f64| {
        let moved = f64::from(x) * to_code + ROUNDING;
        let left = f64::from(x) * made_one - (moved - ROUNDING) * scale;
        *lost += left * left;
        moved.to_bits() as i8
    };
    let (eights, coded) = (vector.chunks_exact(8), codes.chunks_exact_mut(8));
    let rest = eights.remainder();
    let from = vector.len() - rest.len();
    for (eight, coded) in eights.zip(coded) {
        for lane in 0..8 {
            coded[lane] = code(eight[lane], &mut lost[lane]);
        }
    }
    for (lane, x) in rest.iter().enumerate() {
        codes[from + lane] = code(*x, &mut lost[lane]);
    }
    lost.iter().sum()
}

#[cfg(target_arch = "x86_64")]
mod wide {
    #[target_feature(enable = "avx2,fma")]
    pub fn dot(a: &[f32], b: &[f32]) -> f32 {
        super::dot_loop(a, b, true)
    }

    #[target_feature(enable = "avx2,fma")]
    pub fn distance(a: &[f32], b: &[f32]) -> f32 {
        super::distance_loop(a, b)
    }

    #[target_feature(enable = "avx2,fma")]
    pub fn codes(a: &[i8], b: &[i8]) -> i32 {
        super::code_loop(a, b)
    }

    #[target_feature(enable = "avx2,fma")]
    pub fn extent(vector: &[f32]) -> (f64, f32) {
        super::extent_loop(vector)
    }

    #[target_feature(enable = "avx2,fma")]
    pub fn coding(vector: &[f32], one: f64, to_code: f64, scale: f64, codes: &mut [i8]) -> f64 {
        super::coding_loop(vector, one, to_code, scale, codes)
    }

    pub fn here() -> bool {
        std::arch::is_x86_feature_detected!("avx2") && std::arch::is_x86_feature_detected!("fma")
    }
}

/// The dot product of two vectors of one length.
pub fn dot(a: &[f32], b: &[f32]) -> f32 {
    #[cfg(target_arch = "x86_64")]
    if wide::here() {
        // SAFETY: the processor has what the function was compiled for.
        return unsafe { wide::dot(a, b) };
    }
    dot_loop(a, b, false)
}

/// The squared distance of two vectors of one length.
pub fn distance(a: &[f32], b: &[f32]) -> f32 {
    #[cfg(target_arch = "x86_64")]
    if wide::here() {
        // SAFETY: the processor has what the function was compiled for.
        return unsafe { wide::distance(a, b) };
    }
    distance_loop(a, b)
}

/// The dot product of two rows of codes.
pub fn codes(a: &[i8], b: &[i8]) -> i32 {
    #[cfg(target_arch = "x86_64")]
    if wide::here() {
        // SAFETY: the processor has what the function was compiled for.
        return unsafe { wide::codes(a, b) };
    }
    code_loop(a, b)
}

fn extent(vector: &[f32]) -> (f64, f32) {
    #[cfg(target_arch = "x86_64")]
    if wide::here() {
        // SAFETY: the processor has what the function was compiled for.
        return unsafe { wide::extent(vector) };
    }
    extent_loop(vector)
}

fn coding(vector: &[f32], one: f64, to_code: f64, scale: f64, codes: &mut [i8]) -> f64 {
    #[cfg(target_arch = "x86_64")]
    if wide::here() {
        // SAFETY: the processor has what the function was compiled for.
        return unsafe { wide::coding(vector, one, to_code, scale, codes) };
    }
    coding_loop(vector, one, to_code, scale, codes)
}

/// A vector of length 1 in 8 bits a number, and what that leaves out.
pub struct Coded {
    pub codes: Vec<i8>,
    /// A code times this is the number.
    pub scale: f32,
    /// The length of what the codes leave out, at least.
    pub lost: f32,
    /// The length of the vector before it was made 1.
    pub length: f32,
}

impl Coded {
    pub fn of(vector: &[f32]) -> Self {
        let (squares, largest) = extent(vector);
        let length = squares.sqrt();
        let mut codes = vec![0; vector.len()];
        if length == 0.0 {
            return Self {
                codes,
                scale: 0.0,
                lost: 0.0,
                length: 0.0,
            };
        }
        let largest = f64::from(largest);
        let scale = largest / length / 127.0;
        let lost = coding(vector, 1.0 / length, 127.0 / largest, scale, &mut codes);
        // Rounding up: the bound must hold in f32 too.
        let lost = (lost.sqrt() * 1.0001) as f32 + 1e-7;
        Self {
            codes,
            scale: scale as f32,
            lost,
            length: length as f32,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(count: usize, mut seed: u64) -> Vec<f32> {
        (0..count)
            .map(|_| {
                seed = seed
                    .wrapping_mul(6364136223846793005)
                    .wrapping_add(1442695040888963407);
                (seed >> 40) as f32 / 8_388_608.0 - 1.0
            })
            .collect()
    }

    #[test]
    fn the_loops_agree_with_the_definition_at_every_length() {
        for count in (0..70).chain([384, 1536, 1537]) {
            let (a, b) = (numbers(count, 1), numbers(count, 2));
            let plain: f64 = a
                .iter()
                .zip(&b)
                .map(|(x, y)| f64::from(*x) * f64::from(*y))
                .sum();
            let apart: f64 = a
                .iter()
                .zip(&b)
                .map(|(x, y)| f64::from(x - y).powi(2))
                .sum();
            for found in [dot(&a, &b), dot_loop(&a, &b, false)] {
                assert!((f64::from(found) - plain).abs() < 1e-3, "{count}");
            }
            for found in [distance(&a, &b), distance_loop(&a, &b)] {
                assert!((f64::from(found) - apart).abs() < 1e-2, "{count}");
            }
            let (a, b) = (Coded::of(&a).codes, Coded::of(&b).codes);
            let plain: i32 = a
                .iter()
                .zip(&b)
                .map(|(x, y)| i32::from(*x) * i32::from(*y))
                .sum();
            assert_eq!(codes(&a, &b), plain);
            assert_eq!(code_loop(&a, &b), plain);
        }
    }

    #[test]
    fn the_codes_are_as_near_as_they_say() {
        for seed in 1..200 {
            let (a, b) = (numbers(64, seed), numbers(64, seed + 1000));
            let (c, d) = (Coded::of(&a), Coded::of(&b));
            let exact = dot(&a, &b) / (c.length * d.length);
            let found = codes(&c.codes, &d.codes) as f32 * c.scale * d.scale;
            let bound = c.lost + d.lost * (1.0 + c.lost);
            assert!((exact - found).abs() <= bound + 1e-6);
            assert!(bound < 0.05);
        }
    }
}

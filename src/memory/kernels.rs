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
        let squares: f64 = vector.iter().map(|x| f64::from(*x) * f64::from(*x)).sum();
        let length = squares.sqrt();
        if length == 0.0 {
            let codes = vec![0; vector.len()];
            return Self {
                codes,
                scale: 0.0,
                lost: 0.0,
                length: 0.0,
            };
        }
        let largest = vector
            .iter()
            .fold(0f64, |most, x| most.max(f64::from(x.abs())))
            / length;
        let scale = largest / 127.0;
        let mut lost = 0f64;
        let codes = vector
            .iter()
            .map(|x| {
                let number = f64::from(*x) / length;
                let code = (number / scale).round().clamp(-127.0, 127.0);
                lost += (number - code * scale).powi(2);
                code as i8
            })
            .collect();
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

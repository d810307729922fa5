//! The oracle of the tests: plain loops in f64.

pub fn sum_of_squares(g: &[f64]) -> f64 {
    g.iter().map(|x| x * x).sum()
}

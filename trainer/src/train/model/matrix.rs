//! Products of matrices in borrowed memory.
//!
//! candle's product computes the gradient of a frozen weight that nobody asked for, and cannot add to what is there; the
//! kernels under it can.
#![expect(unsafe_code, reason = "the kernels take pointers and strides")]

use gemm::Parallelism;

/// A matrix to read: values that lie apart by strides.
#[derive(Clone, Copy, Debug)]
pub struct Matrix<'a> {
    values: &'a [f32],
    rows: usize,
    columns: usize,
    row_stride: usize,
    column_stride: usize,
}

/// A matrix to write, row after row.
#[derive(Debug)]
pub struct MatrixMut<'a> {
    values: &'a mut [f32],
    rows: usize,
    columns: usize,
}

/// What becomes of the values that are there before a product.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Before {
    /// They are overwritten.
    Forgotten,
    /// The product is added to them.
    Kept,
}

/// On how many threads a product is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Threads {
    /// On the one that asks, because the others have work of their own.
    One,
    /// On all of the pool.
    Pool,
}

impl<'a> Matrix<'a> {
    /// A matrix whose rows lie one after the other.
    ///
    /// # Panics
    /// When there are too few values.
    #[must_use]
    pub fn new(values: &'a [f32], rows: usize, columns: usize) -> Self {
        Self::strided(values, rows, columns, columns)
    }

    /// A matrix whose rows begin `row_stride` values apart.
    ///
    /// # Panics
    /// When there are too few values.
    #[must_use]
    pub fn strided(values: &'a [f32], rows: usize, columns: usize, row_stride: usize) -> Self {
        let needed = if rows == 0 || columns == 0 {
            0
        } else {
            (rows - 1) * row_stride + columns
        };
        assert!(values.len() >= needed, "{} values of {needed}", values.len());
        Self {
            values,
            rows,
            columns,
            row_stride,
            column_stride: 1,
        }
    }

    /// Rows become columns; nothing is moved.
    #[must_use]
    pub fn transposed(self) -> Self {
        Self {
            rows: self.columns,
            columns: self.rows,
            row_stride: self.column_stride,
            column_stride: self.row_stride,
            ..self
        }
    }
}

impl<'a> MatrixMut<'a> {
    /// A matrix whose rows lie one after the other.
    ///
    /// # Panics
    /// When there are too few values.
    #[must_use]
    pub fn new(values: &'a mut [f32], rows: usize, columns: usize) -> Self {
        assert!(values.len() >= rows * columns, "{} of {rows} x {columns}", values.len());
        Self { values, rows, columns }
    }
}

/// `out = factor * left * right`, added to what is there if that is to be kept.
///
/// # Panics
/// When the shapes do not fit.
pub fn multiply(out: MatrixMut, before: Before, factor: f32, left: Matrix, right: Matrix, threads: Threads) {
    assert!(
        (out.rows, out.columns, left.columns) == (left.rows, right.columns, right.rows),
        "{} x {} = {} x {} times {} x {}",
        out.rows,
        out.columns,
        left.rows,
        left.columns,
        right.rows,
        right.columns
    );
    if out.rows == 0 || out.columns == 0 {
        return;
    }
    let stride = |stride: usize| stride as isize;
    // SAFETY: the constructors checked that every element which rows, columns and strides name lies inside the borrowed
    // slices, the shapes fit (above), and `out` is borrowed exclusively, so that it overlaps neither operand.
    unsafe {
        gemm::gemm(
            out.rows,
            out.columns,
            left.columns,
            out.values.as_mut_ptr(),
            1,
            stride(out.columns),
            before == Before::Kept,
            left.values.as_ptr(),
            stride(left.column_stride),
            stride(left.row_stride),
            right.values.as_ptr(),
            stride(right.column_stride),
            stride(right.row_stride),
            1.0,
            factor,
            false,
            false,
            false,
            match threads {
                Threads::One => Parallelism::None,
                Threads::Pool => Parallelism::Rayon(0),
            },
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(count: usize, seed: usize) -> Vec<f32> {
        (0..count).map(|at| ((at * 7 + seed) % 13) as f32 - 6.0).collect()
    }

    #[test]
    fn products_are_what_loops_say() {
        for (rows, inner, columns) in [(1, 1, 1), (3, 5, 2), (17, 33, 65), (70, 2, 9), (1, 40, 30), (40, 30, 1)] {
            let (left, right) = (values(rows * inner, 1), values(columns * inner, 2));
            let mut out = values(rows * columns, 3);
            let expected: Vec<f32> = (0..rows * columns)
                .map(|at| {
                    let (row, column) = (at / columns, at % columns);
                    let sum: f32 = (0..inner)
                        .map(|k| left[row * inner + k] * right[column * inner + k])
                        .sum();
                    out[at] + 0.5 * sum
                })
                .collect();
            for threads in [Threads::One, Threads::Pool] {
                let mut kept = out.clone();
                let transposed = Matrix::new(&right, columns, inner).transposed();
                let matrix = MatrixMut::new(&mut kept, rows, columns);
                multiply(
                    matrix,
                    Before::Kept,
                    0.5,
                    Matrix::new(&left, rows, inner),
                    transposed,
                    threads,
                );
                assert_eq!(kept, expected, "{rows} {inner} {columns}");
            }
            let transposed = Matrix::new(&right, columns, inner).transposed();
            let old = out.clone();
            let matrix = MatrixMut::new(&mut out, rows, columns);
            let left = Matrix::new(&left, rows, inner);
            multiply(matrix, Before::Forgotten, 0.5, left, transposed, Threads::Pool);
            for ((out, old), expected) in out.iter().zip(old).zip(expected) {
                assert_eq!(*out, expected - old);
            }
        }
    }

    #[test]
    fn rows_may_lie_apart() {
        let apart = [1.0, 2.0, 0.0, 3.0, 4.0];
        let mut out = [0.0; 4];
        let one = Matrix::new(&[1.0, 0.0, 0.0, 1.0], 2, 2);
        let matrix = MatrixMut::new(&mut out, 2, 2);
        multiply(
            matrix,
            Before::Forgotten,
            1.0,
            Matrix::strided(&apart, 2, 2, 3),
            one,
            Threads::One,
        );
        assert_eq!(out, [1.0, 2.0, 3.0, 4.0]);
    }

    #[test]
    #[should_panic(expected = "5 values of 6")]
    fn a_matrix_beyond_its_memory_is_refused() {
        let _ = Matrix::strided(&[0.0; 5], 2, 3, 3);
    }
}

// Adjoint of rotated bilinear sampling; the twin is scatter_rotated_twin in scatter.py.
// One thread per (cell, grid): it looks for the coefficients whose rotated position falls within one cell, row by row, so
// that sums have a fixed order and need no atomics. The whole plane is searched; the half that is not stored is the
// conjugate of its mate, which makes the result Hermitian.
// values (row, coefficient) complex64, weights (row, coefficient); order: rows sorted by grid; first (grid + 1): where a
// grid's rows begin in `order`; rotations (2, sorted row): cosines and sines; lookup (2 reach + 1, reach + 1): the
// coefficient at [ky + reach, kx], or -1.
extern "C" __global__ void scatter_rotated(
    const float2* __restrict__ values, const float* __restrict__ weights, const int* __restrict__ order,
    const int* __restrict__ first, const float* __restrict__ rotations, const int* __restrict__ lookup,
    float2* __restrict__ numerator, float* __restrict__ denominator,
    const int row_count, const int coefficient_count, const int reach, const int size, const int padding) {
  const int cell = blockIdx.x * blockDim.x + threadIdx.x;
  const int grid = blockIdx.y;
  if (cell >= size * size) return;
  const int column = cell % size - size / 2, row = cell / size - size / 2;

  float2 sum = make_float2(0.f, 0.f);
  float weight_sum = 0.f;
  // Row and column 0 have no mate on an even grid; nothing is stored there.
  const bool paired = column > -size / 2 && row > -size / 2;
  const float limit = padding * (reach + 1.f) * 1.415f;
  if (paired && (float)column * column + (float)row * row <= limit * limit) {
    for (int r = first[grid]; r < first[grid + 1]; ++r) {
      const float cosine = rotations[r], sine = rotations[row_count + r];
      // The inverse of (c kx - s ky, s kx + c ky) * padding. A cell's footprint is a square of half side 1 / padding <= 1/2
      // (padding >= 2), turned: within 0.71 of the middle, so that the 3 x 3 integer neighbours hold all candidates.
      const float inverse = 1.f / padding;
      const int middle_x = __float2int_rn((cosine * column + sine * row) * inverse);
      const int middle_y = __float2int_rn((-sine * column + cosine * row) * inverse);
      const long long base = (long long)order[r] * coefficient_count;
      for (int ky = middle_y - 1; ky <= middle_y + 1; ++ky) {
        for (int kx = middle_x - 1; kx <= middle_x + 1; ++kx) {
          const float wx = 1.f - fabsf(padding * (cosine * kx - sine * ky) - column);
          const float wy = 1.f - fabsf(padding * (sine * kx + cosine * ky) - row);
          if (wx <= 0.f || wy <= 0.f || kx > reach || -kx > reach || ky > reach || -ky > reach) continue;
          const bool stored = kx > 0 || (kx == 0 && ky > 0);
          const int coefficient = stored ? lookup[(ky + reach) * (reach + 1) + kx] : lookup[(reach - ky) * (reach + 1) - kx];
          if (coefficient < 0) continue;
          const float w = wx * wy;
          const float2 value = values[base + coefficient];
          sum.x += w * value.x;
          sum.y += stored ? w * value.y : -w * value.y;
          weight_sum += w * weights[base + coefficient];
        }
      }
    }
  }
  const long long element = (long long)grid * size * size + cell;
  numerator[element] = sum;
  denominator[element] = weight_sum;
}

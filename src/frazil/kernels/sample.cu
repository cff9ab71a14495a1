// Bilinear samples of centred Fourier grids at rotated frequencies; the twin is sample_rotated_twin in sample.py.
// One thread per (class, angle, coefficient): grids (class, size, size) and out (class, angle, coefficient) are complex64.
extern "C" __global__ void sample_rotated(
    const float2* __restrict__ grids, const float* __restrict__ frequency_x, const float* __restrict__ frequency_y,
    const float* __restrict__ rotations, float2* __restrict__ out,
    const int angle_count, const int coefficient_count, const int size, const int padding, const long long total) {
  const long long element = (long long)blockIdx.x * blockDim.x + threadIdx.x;
  if (element >= total) return;
  const int coefficient = (int)(element % coefficient_count);
  const long long row_of_output = element / coefficient_count;
  const int angle = (int)(row_of_output % angle_count);
  const float2* grid = grids + (row_of_output / angle_count) * size * size;

  const float cosine = rotations[angle] * padding;
  const float sine = rotations[angle_count + angle] * padding;
  const float kx = frequency_x[coefficient], ky = frequency_y[coefficient];
  const float x = cosine * kx - sine * ky + size / 2;
  const float y = sine * kx + cosine * ky + size / 2;
  const int column = (int)x, row = (int)y;
  const float fx = x - column, fy = y - row;

  const float2* corner = grid + (long long)row * size + column;
  const float2 a = corner[0], b = corner[1], c = corner[size], d = corner[size + 1];
  const float wa = (1.f - fx) * (1.f - fy), wb = fx * (1.f - fy), wc = (1.f - fx) * fy, wd = fx * fy;
  out[element] = make_float2(wa * a.x + wb * b.x + wc * c.x + wd * d.x, wa * a.y + wb * b.y + wc * c.y + wd * d.y);
}

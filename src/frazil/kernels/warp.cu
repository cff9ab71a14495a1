// Frames warped by cubic B-splines and added to several sums at once: one thread per pixel of the sums.
// images (frame, y + 2 margin_y, x + 2 margin_x), warps (frame, 10, 2) as (y, x), weights (rank, frame),
// sums (rank, y + 2 apron, x + 2 apron).

#define RANK_MAX 16

__device__ void spline_taps(float f, float* taps) {
  const float g = 1.0f - f;
  taps[0] = g * g * g / 6.0f;
  taps[1] = (4.0f - 6.0f * f * f + 3.0f * f * f * f) / 6.0f;
  taps[2] = (4.0f - 6.0f * g * g + 3.0f * g * g * g) / 6.0f;
  taps[3] = f * f * f / 6.0f;
}

extern "C" __global__ void add_warped(const float* images, const float* warps, const float* weights, float* sums,
                                      int frames, int rank, int height, int width, int margin_y, int margin_x,
                                      int apron) {
  const int canvas_height = height + 2 * apron;
  const int canvas_width = width + 2 * apron;
  const int column = blockIdx.x * blockDim.x + threadIdx.x;
  const int row = blockIdx.y * blockDim.y + threadIdx.y;
  if (column >= canvas_width || row >= canvas_height) return;
  const int x = column - apron;
  const int y = row - apron;
  const float u = (float)x / width - 0.5f;
  const float v = (float)y / height - 0.5f;
  const float terms[10] = {1.0f, u, v, u * u, u * v, v * v, u * u * u, u * u * v, u * v * v, v * v * v};
  const int full_height = height + 2 * margin_y;
  const int full_width = width + 2 * margin_x;
  const long long frame_size = (long long)full_height * full_width;
  float total[RANK_MAX];
#pragma unroll
  for (int r = 0; r < RANK_MAX; ++r) total[r] = 0.0f;

  for (int t = 0; t < frames; ++t) {
    float shift_y = 0.0f, shift_x = 0.0f;
#pragma unroll
    for (int b = 0; b < 10; ++b) {
      shift_y += terms[b] * warps[(t * 10 + b) * 2];
      shift_x += terms[b] * warps[(t * 10 + b) * 2 + 1];
    }
    const float at_y = y + margin_y - shift_y;
    const float at_x = x + margin_x - shift_x;
    const int whole_y = (int)floorf(at_y);
    const int whole_x = (int)floorf(at_x);
    float taps_y[4], taps_x[4];
    spline_taps(at_y - whole_y, taps_y);
    spline_taps(at_x - whole_x, taps_x);
    const int top = min(max(whole_y - 1, 0), full_height - 4);
    const int left = min(max(whole_x - 1, 0), full_width - 4);
    const float* corner = images + t * frame_size + (long long)top * full_width + left;
    float value = 0.0f;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const float* line = corner + (long long)i * full_width;
      value += taps_y[i] * (taps_x[0] * line[0] + taps_x[1] * line[1] + taps_x[2] * line[2] + taps_x[3] * line[3]);
    }
#pragma unroll
    for (int r = 0; r < RANK_MAX; ++r)
      if (r < rank) total[r] += weights[r * frames + t] * value;
  }
#pragma unroll
  for (int r = 0; r < RANK_MAX; ++r)
    if (r < rank) sums[((long long)r * canvas_height + row) * canvas_width + column] += total[r];
}

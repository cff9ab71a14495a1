// Posterior of a tile of images over (shift, class, angle); the twin is posterior_twin in posterior.py.
// One block of THREADS threads per image. cross (image, shift, class, angle) is overwritten by the weights.
// Every sum runs in a fixed order: strided per thread, then a tree, so that results repeat bit for bit.
#define THREADS 256

__device__ __forceinline__ float block_sum(float value, float* shared) {
  shared[threadIdx.x] = value;
  __syncthreads();
  for (int half = THREADS / 2; half > 0; half >>= 1) {
    if (threadIdx.x < half) shared[threadIdx.x] += shared[threadIdx.x + half];
    __syncthreads();
  }
  const float result = shared[0];
  __syncthreads();
  return result;
}

__device__ __forceinline__ float block_max(float value, float* shared) {
  shared[threadIdx.x] = value;
  __syncthreads();
  for (int half = THREADS / 2; half > 0; half >>= 1) {
    if (threadIdx.x < half) shared[threadIdx.x] = fmaxf(shared[threadIdx.x], shared[threadIdx.x + half]);
    __syncthreads();
  }
  const float result = shared[0];
  __syncthreads();
  return result;
}

extern "C" __global__ void posterior(
    float* __restrict__ cross, const float* __restrict__ power, const float* __restrict__ log_prior_shift,
    const float* __restrict__ log_prior_class, float* __restrict__ classes, int* __restrict__ best,
    float* __restrict__ log_likelihood, int* __restrict__ kept,
    const int shift_count, const int class_count, const int angle_count, const float cutoff) {
  __shared__ float shared[THREADS];
  __shared__ int winner_shared;
  const long long image = blockIdx.x;
  const int hypotheses = class_count * angle_count;
  float* values = cross + image * shift_count * hypotheses;
  const float* norms = power + image * hypotheses;
  float* mass = classes + image * class_count;

  float top = -1e30f;
  for (int t = 0; t < shift_count; ++t) {
    const float prior = log_prior_shift[image * shift_count + t];
    for (int j = threadIdx.x; j < hypotheses; j += THREADS) {
      const float value = values[(long long)t * hypotheses + j] - 0.5f * norms[j] + log_prior_class[j / angle_count] + prior;
      values[(long long)t * hypotheses + j] = value;
      top = fmaxf(top, value);
    }
  }
  top = block_max(top, shared);  // its barriers also make the values above visible to the whole block

  float count = 0.f, total = 0.f;
  const int per_class = shift_count * angle_count;
  for (int c = 0; c < class_count; ++c) {
    float sum = 0.f;
    for (int e = threadIdx.x; e < per_class; e += THREADS) {
      float* value = values + (long long)(e / angle_count) * hypotheses + c * angle_count + e % angle_count;
      const bool above = *value > top - cutoff;
      const float weight = above ? expf(*value - top) : 0.f;
      *value = weight;
      sum += weight;
      count += above;
    }
    sum = block_sum(sum, shared);
    if (threadIdx.x == 0) mass[c] = sum;
    total += sum;
  }
  count = block_sum(count, shared);

  if (threadIdx.x == 0) {
    int winner = 0;
    for (int c = 0; c < class_count; ++c) {
      mass[c] /= total;
      if (mass[c] > mass[winner]) winner = c;
    }
    winner_shared = winner;
    log_likelihood[image] = top + logf(total);
    kept[image] = (int)count;
  }
  __syncthreads();
  const int winner = winner_shared;

  float best_weight = -1.f;
  int best_pose = per_class;
  for (int e = threadIdx.x; e < per_class; e += THREADS) {
    const float weight = values[(long long)(e / angle_count) * hypotheses + winner * angle_count + e % angle_count];
    if (weight > best_weight) { best_weight = weight; best_pose = e; }
  }
  const float best_of_all = block_max(best_weight, shared);
  // Of equal weights the first pose wins, as in the twin.
  __shared__ int first_pose;
  if (threadIdx.x == 0) first_pose = per_class;
  __syncthreads();
  if (best_weight == best_of_all) atomicMin(&first_pose, best_pose);
  __syncthreads();
  if (threadIdx.x == 0) {
    best[image * 3] = winner;
    best[image * 3 + 1] = first_pose / angle_count;
    best[image * 3 + 2] = first_pose % angle_count;
  }

  const float inverse = 1.f / total;
  for (long long e = threadIdx.x; e < (long long)shift_count * hypotheses; e += THREADS) values[e] *= inverse;
}

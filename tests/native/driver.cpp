// Calls one operator on arrays from stdin and writes its results to stdout: how the tests run a
// library that was built for another processor. The order of the fields is that of
// tests/test_latent_compilers.py.
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "lord_fast_kernels.h"

namespace {

// `operation` is 0 for gather, 1 for scatter_adam, and 2 for leaky_adain with its gradients. The
// last has images, channels and pixels as num_rows, dim and batch, bfloat16 as total_steps, and the
// slope as beta1.
struct Header {
  int64_t operation, num_rows, dim, batch, total_steps, step, seed, terms;
  double beta1, beta2, eps, std;
};

template <typename T>
std::vector<T> read(int64_t count) {
  std::vector<T> values(count);
  // An empty vector may have no address at all.
  if (count > 0 &&
      std::fread(values.data(), sizeof(T), count, stdin) != static_cast<size_t>(count)) {
    std::exit(90);
  }
  return values;
}

template <typename T>
void write(const std::vector<T>& values) {
  if (!values.empty()) std::fwrite(values.data(), sizeof(T), values.size(), stdout);
}

int adain(const Header& h) {
  constexpr int kThreads = 2;
  const int64_t bytes = h.num_rows * h.batch * h.dim * (h.total_steps != 0 ? 2 : 4);
  const int64_t codes = h.num_rows * h.dim;
  const auto x = read<char>(bytes), grad = read<char>(bytes);
  const auto added = read<float>(h.dim), bias = read<float>(codes), scale = read<float>(codes);
  const float slope = static_cast<float>(h.beta1), eps = static_cast<float>(h.eps);
  const int bf16 = static_cast<int>(h.total_steps);
  std::vector<char> out(bytes), of_x(bytes);
  std::vector<float> mean(codes), rstd(codes), of_added(codes), of_bias(codes), of_scale(codes);
  lord_fast_leaky_adain(x.data(), added.data(), bias.data(), scale.data(), h.num_rows, h.batch,
                        h.dim, slope, eps, bf16, kThreads, out.data(), mean.data(), rstd.data());
  lord_fast_leaky_adain_backward(grad.data(), x.data(), added.data(), scale.data(), mean.data(),
                                 rstd.data(), h.num_rows, h.batch, h.dim, slope, bf16, kThreads,
                                 of_x.data(), of_added.data(), of_bias.data(), of_scale.data());
  write(out), write(mean), write(rstd);
  write(of_x), write(of_added), write(of_bias), write(of_scale);
  return 0;
}

}  // namespace

int main() {
  const Header h = read<Header>(1)[0];
  if (h.operation == 2) return adain(h);
  const int64_t size = h.num_rows * h.dim;
  auto weight = read<float>(size), exp_avg = read<float>(size), exp_avg_sq = read<float>(size);
  auto last_step = read<int64_t>(h.num_rows);
  const auto rows = read<int64_t>(h.batch), noise_ids = read<int64_t>(h.batch);
  const auto lr = read<float>(h.total_steps);
  const auto grad = read<float>(h.batch * h.dim);
  constexpr int kThreads = 2;
  if (h.operation == 1) {
    const int status = lord_fast_scatter_adam(
        weight.data(), exp_avg.data(), exp_avg_sq.data(), last_step.data(), h.num_rows, h.dim,
        h.dim, rows.data(), grad.data(), h.batch, lr.data(), h.total_steps, &h.step, h.beta1,
        h.beta2, h.eps, h.terms, kThreads);
    write(weight), write(exp_avg), write(exp_avg_sq), write(last_step);
    return status;
  }
  std::vector<float> codes(h.batch * h.dim);
  const int status = lord_fast_gather(
      weight.data(), exp_avg.data(), exp_avg_sq.data(), last_step.data(), h.num_rows, h.dim, h.dim,
      rows.data(), noise_ids.data(), h.batch, lr.data(), h.total_steps, &h.step,
      static_cast<float>(h.std), h.seed, h.beta1, h.beta2, h.eps, h.terms, kThreads, codes.data());
  write(codes);
  return status;
}

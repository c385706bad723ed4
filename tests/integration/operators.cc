// An operator library like torchvision's: registers its operator when it is loaded.
#include <ATen/ATen.h>
#include <torch/library.h>
#include <unistd.h>

#include <string>

namespace {

// x, and `slope * x` where x is negative.
at::Tensor Leak(const at::Tensor& x, double slope) { return at::where(x < 0, x * slope, x); }

// x, once there is a file at `path`: for as long as that takes its thread is stuck.
at::Tensor AfterFile(const at::Tensor& x, std::string path) {
  while (::access(path.c_str(), F_OK) != 0) ::usleep(1000);
  return x.clone();
}

TORCH_LIBRARY(hearth_test, library) {
  library.def("leak(Tensor x, float slope) -> Tensor", &Leak);
  library.def("after_file(Tensor x, str path) -> Tensor", &AfterFile);
}

}  // namespace

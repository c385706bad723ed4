// LibTorch as a process-wide thing: its version, its threads, its operator libraries.
// No torch headers: app.cc and tests include this.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "server/base/status.h"

namespace hearth {

std::string TorchVersion();  // "2.13.0"

// Call once on each thread that runs models: at::set_num_threads acts on the calling thread, and each
// such thread owns an OpenMP team, so compute threads x intra_op_threads should not exceed the cores.
void ConfigureTorchThread(int intra_op_threads);

// Once, before the first model: inter-op pool size 1 (our own pool is the parallelism between models),
// the operator upgraders, and what the JIT would compile for itself during the first model's first run.
void InitialiseTorch();

// dlopens operator libraries (torchvision's `nms`, say), so that programs which use them can be
// parsed. They stay for the life of the process: their operators are registered globally.
// INVALID_ARGUMENT naming the library and the dynamic linker's reason.
absl::Status LoadOperatorLibraries(const std::vector<std::filesystem::path>& libraries);

}  // namespace hearth

#include "server/frontend/shared_memory_rpc.h"

#include <string>
#include <utility>
#include <vector>

#include "server/frontend/shared_memory_refusals.h"
#include "server/frontend/unary_call.h"

namespace hearth {
namespace {

using AsyncService = inference::GRPCInferenceService::AsyncService;
using StatusCall =
    UnaryCall<inference::SystemSharedMemoryStatusRequest, inference::SystemSharedMemoryStatusResponse>;
using RegisterCall =
    UnaryCall<inference::SystemSharedMemoryRegisterRequest, inference::SystemSharedMemoryRegisterResponse>;
using UnregisterCall =
    UnaryCall<inference::SystemSharedMemoryUnregisterRequest, inference::SystemSharedMemoryUnregisterResponse>;
using CudaStatusCall = UnaryCall<inference::CudaSharedMemoryStatusRequest, inference::CudaSharedMemoryStatusResponse>;
using CudaRegisterCall =
    UnaryCall<inference::CudaSharedMemoryRegisterRequest, inference::CudaSharedMemoryRegisterResponse>;
using CudaUnregisterCall =
    UnaryCall<inference::CudaSharedMemoryUnregisterRequest, inference::CudaSharedMemoryUnregisterResponse>;

constexpr int kArmed = 4;

void FillRegion(const SharedRegion::Place& place, inference::SystemSharedMemoryStatusResponse& response) {
  auto& region = (*response.mutable_regions())[place.name];
  region.set_name(place.name);
  region.set_key(place.key);
  region.set_offset(place.offset);
  region.set_byte_size(place.byte_size);
}

void Status(StatusCall call, const SharedMemory& memory) {
  const std::string& name = call.request().name();
  for (const SharedRegion::Place& place : memory.List()) {
    if (name.empty() || place.name == name) FillRegion(place, call.response());
  }
  const bool missing = !name.empty() && call.response().regions().empty();
  std::move(call).Finish(missing ? RegionNotFound("system", name) : absl::OkStatus());
}

void Register(RegisterCall call, SharedMemory& memory) {
  const auto& request = call.request();
  const absl::Status done =
      memory.Register({request.name(), request.key(), request.offset(), request.byte_size()});
  std::move(call).Finish(done);
}

}  // namespace

void ServeSharedMemory(EventLoop& loop, AsyncService& service, SharedMemory& memory) {
  ServeUnary(loop, "inference.GRPCInferenceService/SystemSharedMemoryStatus", service, &AsyncService::RequestSystemSharedMemoryStatus, kArmed,
             [&memory](StatusCall call) { Status(std::move(call), memory); });
  ServeUnary(loop, "inference.GRPCInferenceService/SystemSharedMemoryRegister", service, &AsyncService::RequestSystemSharedMemoryRegister, kArmed,
             [&memory](RegisterCall call) { Register(std::move(call), memory); });
  ServeUnary(loop, "inference.GRPCInferenceService/SystemSharedMemoryUnregister", service, &AsyncService::RequestSystemSharedMemoryUnregister, kArmed,
             [&memory](UnregisterCall call) {
               memory.Unregister(call.request().name());
               std::move(call).Finish(absl::OkStatus());
             });
  ServeUnary(loop, "inference.GRPCInferenceService/CudaSharedMemoryStatus", service, &AsyncService::RequestCudaSharedMemoryStatus, kArmed, [](CudaStatusCall call) {
    const std::string name = call.request().name();
    std::move(call).Finish(name.empty() ? absl::OkStatus() : RegionNotFound("cuda", name));
  });
  ServeUnary(loop, "inference.GRPCInferenceService/CudaSharedMemoryRegister", service, &AsyncService::RequestCudaSharedMemoryRegister, kArmed, [](CudaRegisterCall call) {
    std::move(call).Finish(NoCudaMemory());
  });
  ServeUnary(loop, "inference.GRPCInferenceService/CudaSharedMemoryUnregister", service, &AsyncService::RequestCudaSharedMemoryUnregister, kArmed,
             [](CudaUnregisterCall call) { std::move(call).Finish(absl::OkStatus()); });
}

}  // namespace hearth

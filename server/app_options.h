// What the parts of the daemon are told, from the configuration: conversions, no decisions.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "server/base/tls_files.h"
#include "server/config/machine_limits.h"
#include "server/config/server_config.h"
#include "server/frontend/grpc_server.h"
#include "server/frontend/http_server.h"
#include "server/frontend/otlp_exporter.h"
#include "server/residency/model_manager.h"
#include "server/serving/access.h"
#include "server/serving/infer_service.h"
#include "server/serving/preloader.h"
#include "server/torch_backend/devices.h"

namespace hearth {

// Host memory for programs whose models have left; models get what remains.
std::uint64_t KeptProgramBytes(const ServerConfig::Cache& cache, const MemoryLimit& limit);

// What Devices::list() has, as budgets and people know it.
using ListedDevices = std::vector<Devices::Listed>;
DeviceNames NamesOf(const ListedDevices& devices);
// INVALID_ARGUMENT: devices have a budget, and there are none of these names; a line for each, with its place.
absl::Status CheckDeviceBudgets(const ServerConfig::Cache& cache, const ListedDevices& devices);

// `kept_programs`: what the loader was told to keep, also when the budget is another one by now.
MemoryBudget::Capacity CapacityOf(const ServerConfig::Cache& cache, const MemoryLimit& limit,
                                  const ListedDevices& devices, std::uint64_t kept_programs);

const EvictionPolicy& PolicyOf(const ServerConfig::Cache& cache);  // lives for ever
ModelManager::Options ManagerOptions(const ServerConfig::Cache& cache, const MemoryBudget::Capacity& capacity);
InferService::Options InferOptions(const ServerConfig& config);
Preloader::Options PreloaderOptions(const ServerConfig::Cache& cache);
// Reads the files with tokens. INVALID_ARGUMENT: a line for each that is no good, with its place in the configuration.
absl::StatusOr<AccessPolicy> AccessPolicyOf(const ServerConfig& config);
// Reads the certificates. None: there are none. INVALID_ARGUMENT as above.
absl::StatusOr<std::optional<TlsMaterial>> TlsMaterialOf(const ServerConfig& config);
// Whether both can be read.
absl::Status CheckSecrets(const ServerConfig& config);
std::vector<PreloadItem> PreloadItems(const std::vector<ServerConfig::Preload>& models);
// `tls`: null where there are no certificates.
GrpcServer::Options GrpcOptions(const ServerConfig& config, const TlsSource* tls);
HttpServer::Options HttpOptions(const ServerConfig::Http& http, const TlsSource* tls);
HttpServer::Options RestOptions(const ServerConfig& config, BufferPool& buffers, const TlsSource* tls);
// INVALID_ARGUMENT: the endpoint is none.
absl::StatusOr<OtlpExporter::Options> TracingOptions(const ServerConfig& config);
int ComputeThreads(const ServerConfig::Compute& compute);
// None with one processor: who waits for a request awake would keep it from coming.
Duration ComputeBusyWait(const ServerConfig::Compute& compute);

}  // namespace hearth

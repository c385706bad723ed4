// hearth.v1.Cache: what a model's place in the cache should be, and why it is what it is.
#pragma once

#include "hearth/v1/cache.grpc.pb.h"
#include "server/frontend/event_loop.h"
#include "server/serving/cache_service.h"

namespace hearth {

// Serves Prefetch, Pin, Unpin, Evict and Explain of `service` on `loop`. `cache` outlives the loop's calls.
void ServeCacheControl(EventLoop& loop, hearth::v1::Cache::AsyncService& service, CacheService& cache);

}  // namespace hearth

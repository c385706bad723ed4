// The journal's events as hearth.v1 has them.
#pragma once

#include "hearth/v1/cache.pb.h"
#include "server/base/clock.h"
#include "server/residency/cache_event.h"

namespace hearth {

// `now`: what its age is measured from.
void FillEvent(const CacheEvent& event, TimePoint now, const DeviceNames& devices, hearth::v1::Event& wire);

void FillBytes(const Bytes& bytes, const DeviceNames& devices, hearth::v1::Bytes& wire);

}  // namespace hearth

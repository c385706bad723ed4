#include "server/frontend/cache_event_wire.h"

#include <string>

#include "server/frontend/wire_time.h"

namespace hearth {
namespace {

void FillCause(const EvictionCause& cause, const DeviceNames& devices, hearth::v1::EvictionCause& wire) {
  wire.set_model(cause.made_room_for.name);
  wire.set_version(cause.made_room_for.version);
  FillBytes(cause.needed, devices, *wire.mutable_needed());
  wire.set_loss(cause.loss);
  wire.set_rank(cause.rank);
  wire.set_candidates(cause.candidates);
  wire.set_demand(cause.demand);
}

void FillLeft(const CacheEvent& event, const DeviceNames& devices, hearth::v1::Event& wire) {
  wire.set_reason(std::string(ToString(event.reason)));
  wire.set_resident_seconds(ToSeconds(event.resident));
  wire.set_idle_seconds(ToSeconds(event.idle));
  wire.set_hits(event.hits);
  if (event.cause) FillCause(*event.cause, devices, *wire.mutable_cause());
}

}  // namespace

void FillBytes(const Bytes& bytes, const DeviceNames& devices, hearth::v1::Bytes& wire) {
  wire.set_device(bytes.device_bytes.total());
  wire.set_host(bytes.host_bytes);
  wire.set_mapped(bytes.mapped_bytes);
  for (DeviceNumber d = 0; d < bytes.device_bytes.end(); ++d) {
    if (bytes.device_bytes[d] == 0) continue;
    hearth::v1::DeviceBytes& device = *wire.add_devices();
    device.set_device(NameOf(d, devices));
    device.set_bytes(bytes.device_bytes[d]);
  }
}

void FillEvent(const CacheEvent& event, TimePoint now, const DeviceNames& devices, hearth::v1::Event& wire) {
  wire.set_sequence(event.sequence);
  FillTime(event.time, *wire.mutable_time());
  wire.set_age_seconds(ToSeconds(now - event.at));
  wire.set_model(event.id.name);
  wire.set_version(event.id.version);
  wire.set_kind(std::string(ToString(event.kind)));
  wire.set_text(Describe(event, devices));
  if (event.bytes != Bytes{}) FillBytes(event.bytes, devices, *wire.mutable_bytes());
  wire.set_load_seconds(ToSeconds(event.took));
  wire.set_waiters(event.waiters);
  if (event.kind == CacheEventKind::kReady || event.kind == CacheEventKind::kFell) {
    wire.set_tier(std::string(ToString(event.tier)));
  }
  if (event.away) wire.set_away_seconds(ToSeconds(*event.away));
  if (!event.error.ok()) {
    wire.set_error(std::string(FromAbsl(event.error.message())));
    wire.set_code(std::string(CodeName(event.error.code())));
  }
  if (event.kind == CacheEventKind::kEvicted || event.kind == CacheEventKind::kUnloaded) {
    FillLeft(event, devices, wire);
  }
}

}  // namespace hearth

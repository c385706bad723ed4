#include "server/frontend/request_memory.h"

#include <utility>
#include <vector>

#include "server/base/bytes.h"
#include "server/base/strings.h"
#include "server/tensor/buffer_pool.h"

namespace hearth {
namespace {

constexpr std::chrono::milliseconds kSoon{100};  // some requests have ended by then

absl::Status Refusal(std::string_view what, std::uint64_t wanted, std::uint64_t most) {
  if (wanted > most) {
    return absl::ResourceExhaustedError(StrCat("no memory for ", what, ": ", FormatBytes(wanted), " are more than the ",
                                               FormatBytes(most), " that all requests together may have; raise limits.request_memory"));
  }
  return WithRetryAfter(
      absl::ResourceExhaustedError(StrCat("no memory for ", what, ": all requests together may have ", FormatBytes(most),
                                          " (limits.request_memory); ask again soon")),
      kSoon);
}

absl::Status ShareRefusal(std::uint64_t most) {
  return absl::ResourceExhaustedError(
      StrCat("no memory for the answer to this request: answers that a connection has not read may have ", FormatBytes(most),
             ", half of limits.request_memory; read them, ask for less at a time, or raise it"));
}

struct Held {
  ByteCharge whole, share;
  std::vector<std::shared_ptr<const void>> owners;
};

absl::StatusOr<std::shared_ptr<ByteCharge>> ChargeFor(std::string_view what, const std::shared_ptr<ByteAllowance>& whole,
                                                      std::uint64_t bytes) {
  if (bytes <= ByteAllowance::kSmall || whole == nullptr) return nullptr;
  auto charge = std::make_shared<ByteCharge>(whole);
  if (!charge->GrowTo(bytes)) return Refusal(what, bytes, whole->most());
  return charge;
}

absl::StatusOr<std::shared_ptr<Held>> Charge(const std::shared_ptr<ByteAllowance>& whole,
                                             const std::shared_ptr<ByteAllowance>& share, std::uint64_t bytes) {
  auto held = std::make_shared<Held>(Held{ByteCharge(whole), ByteCharge(share), {}});
  if (!held->share.GrowTo(bytes)) return ShareRefusal(share->most());
  if (!held->whole.GrowTo(bytes)) return Refusal("the answer to this request", bytes, whole->most());
  return held;
}

std::uint64_t BytesOf(const TensorList& outputs) {
  std::uint64_t bytes = 0;
  for (const NamedTensor& output : outputs) bytes += output.tensor.data.size();
  return bytes;
}

}  // namespace

absl::Status NoMemoryFor(std::string_view what, const std::bad_alloc& why) {
  if (const auto* full = dynamic_cast<const BufferPool::Full*>(&why)) return Refusal(what, full->wanted(), full->most());
  return absl::ResourceExhaustedError(StrCat("no memory for ", what));
}

absl::StatusOr<std::shared_ptr<ByteCharge>> ChargeAnswer(const std::shared_ptr<ByteAllowance>& whole, std::uint64_t bytes) {
  return ChargeFor("the answer to this request", whole, bytes);
}

absl::StatusOr<std::shared_ptr<ByteCharge>> ChargeNames(const std::shared_ptr<ByteAllowance>& whole, std::uint64_t bytes) {
  return ChargeFor("the names and shapes of this request", whole, bytes);
}

std::shared_ptr<ByteAllowance> AnswerShares::Of(const std::string& connection) {
  if (whole_ == nullptr) return nullptr;
  const std::uint64_t most = whole_->most() / 2;
  MutexLock lock(mu_);
  std::weak_ptr<ByteAllowance>& known = shares_[connection];
  std::shared_ptr<ByteAllowance> share = known.lock();
  if (share == nullptr) known = share = std::make_shared<ByteAllowance>(most);
  share->SetMost(most);
  if (shares_.size() >= sweep_at_) {
    std::erase_if(shares_, [](const auto& one) { return one.second.expired(); });
    sweep_at_ = 64 + 2 * shares_.size();
  }
  return share;
}

bool AreSmall(const TensorList& outputs) { return BytesOf(outputs) <= ByteAllowance::kSmall; }

absl::Status ChargeOutputs(const std::shared_ptr<ByteAllowance>& whole,
                           const std::shared_ptr<ByteAllowance>& share, TensorList& outputs) {
  HEARTH_ASSIGN_OR_RETURN(const std::shared_ptr<Held> held, Charge(whole, share, BytesOf(outputs)));
  held->owners.reserve(outputs.size());
  for (NamedTensor& output : outputs) held->owners.push_back(std::exchange(output.tensor.owner, held));
  return absl::OkStatus();
}

}  // namespace hearth

#include "server/serving/sequences.h"

#include <iterator>
#include <map>
#include <utility>

#include "server/base/check.h"
#include "server/base/log.h"
#include "server/base/strings.h"

namespace hearth {
namespace {

using std::chrono::milliseconds;

constexpr Duration kSweepEvery = milliseconds(500);
constexpr Duration kSweepQueuesEvery = milliseconds(20);

}  // namespace

absl::Status NoSuchSequence(const InferRequest& request) {
  return absl::InvalidArgumentError(
      StrCat("inference request for sequence ", request.sequence->id, " to model '", request.model,
             "' must specify the START flag on the first request of the sequence; if it did, the sequence has ended since (after its "
             "END, its idle time, a run that failed, an unload, or to make room), or its first request was refused"));
}

Sequences::Sequences(Deps deps) : deps_(deps), alarm_(deps.timer, [this] { Sweep(); }) {}

Sequences::~Sequences() { Close(); }

Sequences::Entered Sequences::Enter(InferCall::Ptr& call) {
  const SequenceControl& control = *call->request.sequence;
  const std::string& model = call->request.model;
  const auto options = deps_.catalog.Options(model);
  Ptr ended;  // what goes, goes without the lock
  MutexLock lock(mu_);
  OfModel& of_model = live_[model];
  const auto found = of_model.find(control.id);
  if (!control.start) {
    if (found == of_model.end()) return Entered::kNone;
    Sequence& sequence = *found->second;
    if (sequence.busy) {
      sequence.waiting.push_back(std::move(call));
      ++waiting_;
      SetSweep();
      return Entered::kLater;
    }
    sequence.busy = true;
    call->sequence = found->second;
    return Entered::kNow;
  }
  if (found != of_model.end()) {
    ended = found->second;
    End(*ended, Why::kRestart);
  }
  const SequenceOptions limits = options == nullptr ? SequenceOptions{} : options->sequences;
  if (closed_ || of_model.size() >= limits.max) return Entered::kTooMany;
  auto sequence = std::make_shared<Sequence>();
  sequence->model = model;
  sequence->id = control.id;
  sequence->options = limits;
  sequence->last_used = deps_.clock.Now();
  call->sequence = sequence;
  of_model.emplace(control.id, std::move(sequence));
  SetSweep();
  return Entered::kNow;
}

// No request finds it any more. Those that wait for it are still answered by it.
void Sequences::End(Sequence& sequence, Why why) {
  if (std::exchange(sequence.over, true)) return;
  ++ended_[static_cast<std::size_t>(why)];
  live_[sequence.model].erase(sequence.id);
}

std::vector<InferCall::Ptr> Sequences::Dissolve(InferCall& call) {
  const Ptr sequence = std::exchange(call.sequence, nullptr);
  std::vector<InferCall::Ptr> free;
  MutexLock lock(mu_);
  if (!std::exchange(sequence->over, true)) live_[sequence->model].erase(sequence->id);
  std::move(sequence->waiting.begin(), sequence->waiting.end(), std::back_inserter(free));
  waiting_ -= free.size();
  sequence->waiting.clear();
  return free;
}

Sequences::Left Sequences::Leave(InferCall& call, StateIs state) {
  const Ptr sequence = std::exchange(call.sequence, nullptr);  // the last one frees it, without the lock
  Left left;
  MutexLock lock(mu_);
  HEARTH_CHECK(sequence->busy);
  sequence->busy = false;
  sequence->last_used = deps_.clock.Now();
  const bool refused = state == StateIs::kBefore && sequence->session == nullptr;  // and nothing of it ever ran
  const bool lost = state == StateIs::kLost || refused;
  const bool last = call.request.sequence->end && state == StateIs::kNext;
  if (lost) End(*sequence, refused ? Why::kRefused : Why::kError);
  if (last) End(*sequence, Why::kEnd);
  if (closed_) End(*sequence, Why::kShutdown);
  if (lost || last) {
    std::move(sequence->waiting.begin(), sequence->waiting.end(), std::back_inserter(left.orphans));
    waiting_ -= left.orphans.size();
    sequence->waiting.clear();
  } else if (!sequence->waiting.empty()) {
    left.next = std::move(sequence->waiting.front());
    sequence->waiting.pop_front();
    --waiting_;
    left.next->sequence = sequence;
    sequence->busy = true;
  }
  return left;
}

void Sequences::Close() {
  std::vector<Ptr> ended;
  MutexLock lock(mu_);
  closed_ = true;
  for (auto& [model, of_model] : live_) {
    for (auto& [id, sequence] : of_model) {
      if (!sequence->busy) ended.push_back(sequence);
    }
  }
  for (const Ptr& sequence : ended) End(*sequence, Why::kShutdown);
}

std::optional<Sequences::Why> Sequences::WhyEnd(const Sequence& sequence, TimePoint now) const {
  if (sequence.busy) return std::nullopt;
  const Duration idle = sequence.options.idle_timeout;
  if (idle > Duration::zero() && now - sequence.last_used >= idle) return Why::kIdle;
  const bool gives_way = sequence.options.on_pressure == SequenceOptions::OnPressure::kEnd;
  if (gives_way && deps_.manager.wants_room()) return Why::kPressure;
  if (sequence.served != nullptr && !deps_.catalog.Resolve(sequence.model, sequence.served->id.version).ok()) {
    return Why::kUnload;
  }
  return std::nullopt;
}

void Sequences::SetSweep() { alarm_.SetBy(deps_.clock.Now() + (waiting_ > 0 ? kSweepQueuesEvery : kSweepEvery)); }

void Sequences::Sweep() {
  std::vector<Ptr> ended;  // destroyed without the lock
  std::vector<std::pair<InferCall::Ptr, absl::Status>> refused;
  std::map<std::pair<std::string, Why>, int> told;
  {
    MutexLock lock(mu_);
    const TimePoint now = deps_.clock.Now();
    std::vector<std::pair<Ptr, Why>> ending;
    bool any = false;
    for (auto& [model, of_model] : live_) {
      for (auto& [id, sequence] : of_model) {
        any = true;
        if (const auto why = WhyEnd(*sequence, now)) ending.emplace_back(sequence, *why);
        std::deque<InferCall::Ptr> kept;
        for (InferCall::Ptr& call : sequence->waiting) {
          absl::Status wanted = call->StillWanted(now);
          if (wanted.ok()) {
            kept.push_back(std::move(call));
          } else {
            refused.emplace_back(std::move(call), std::move(wanted));
            --waiting_;
          }
        }
        sequence->waiting = std::move(kept);
      }
    }
    for (auto& [sequence, why] : ending) {
      End(*sequence, why);
      ++told[{sequence->model, why}];
      ended.push_back(std::move(sequence));
    }
    if (any) SetSweep();
  }
  for (const auto& [what, count] : told) {
    log::Info("sequences ended",
              {{"model", what.first}, {"reason", kWhys[static_cast<std::size_t>(what.second)]}, {"sequences", count}});
  }
  for (auto& [call, why] : refused) call->Fail(std::move(why));
}

std::vector<Metrics::Sample> Sequences::Samples() const {
  MutexLock lock(mu_);
  std::vector<Metrics::Sample> samples;
  for (const auto& [model, of_model] : live_) {
    samples.push_back({"hearth_sequences", "Sequences that have begun and not ended.", {{"model", model}},
                       static_cast<double>(of_model.size())});
  }
  for (std::size_t i = 0; i < kWhys.size(); ++i) {
    samples.push_back({"hearth_sequences_ended_total", "Sequences that have ended, by the reason.", {{"reason", kWhys[i]}},
                       static_cast<double>(ended_[i]), true});
  }
  return samples;
}

}  // namespace hearth

#include "server/serving/run_scheduler.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "server/base/check.h"
#include "server/residency/alarm.h"

namespace hearth {
namespace {

using std::chrono::milliseconds;

constexpr double kQuickSeconds = 0.02;
constexpr Duration kSoonEnough = milliseconds(20);     // for the reserve to be left alone
constexpr Duration kSweepEvery = milliseconds(20);     // while somebody waits
constexpr Duration kWatchEvery = milliseconds(500);    // while somebody only runs
constexpr double kAveragedOver = 8;
constexpr milliseconds kSoon{100};                     // some of those that wait have been run by then
constexpr double kLeastCharge = 1e-6;                  // seconds: whoever runs has had something
constexpr double kOverdueTimes = 10;
constexpr double kOverdueSeconds = 1;

Duration ToDuration(double seconds) { return std::chrono::duration_cast<Duration>(std::chrono::duration<double>(seconds)); }

}  // namespace

// What is to be done once the lock is gone.
struct RunScheduler::Posts {
  std::size_t tickets = 0;
  bool reserve = false;
  std::optional<TimePoint> sweep;
};

// A model's turn is not in the executor's queue, only that there is one: a ticket. There are never fewer tickets than
// turns that may begin; one too many finds nothing to do.
//
// Where no run is wider than others, that there is a thread says that there are processors: nothing is looked at but that.
struct RunScheduler::State : std::enable_shared_from_this<State> {
  struct Run {
    std::uint64_t id;
    Lane* lane;
    TimePoint started;
    double charged;
    int width;  // processors; those on the reserve count as none
    bool on_reserve;
    bool replaced = false;  // on the reserve: another thread has taken its place
    bool blocks = false;  // was not known to be quick when it began
    bool told = false;
  };

  explicit State(Deps d) : deps(std::move(d)), processors(static_cast<int>(deps.compute.width()) * deps.threads) {
    alarm.emplace(deps.timer, [this] { Sweep(); });
  }

  Posts Update(Lane& lane, TimePoint now) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu);
  void Plan(Posts& posts, TimePoint now) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu);
  void Count(Lane& lane, TimePoint now) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu);
  std::size_t Turns(TimePoint now) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu);
  bool WantsReserve(TimePoint now) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu);
  bool IsStuck(TimePoint now) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu);
  template <typename May>
  Lane* Least(May may) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu);
  Lane* Next() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu);
  Lane* NextOnReserve() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu);
  Lane* NextThatFits(TimePoint now) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu);
  Lane* LeastUntil(TimePoint until, int left, TimePoint now) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu);
  TimePoint FitsAt(const Lane& lane, TimePoint now) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu);
  int WidthOf(const Lane& lane) const { return lane.threads_ > 0 ? std::min(lane.threads_, processors) : deps.threads; }
  bool IsWide(int width) const { return width > deps.threads; }
  bool Fits(const Lane& lane) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu) { return WidthOf(lane) <= processors - used; }
  void SetPolicy(Lane& lane, const RunPolicy& policy) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu);
  void Begin(Run& run) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu);
  void End(const Run& run) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu);
  void NoteBlocks(Run& run) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu);
  void NoteSlow(Run& run) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu);
  static Overdue OverdueOf(const Run& run, TimePoint now);
  void Do(const Posts& posts) ABSL_LOCKS_EXCLUDED(mu);
  void RunNext(bool on_reserve) ABSL_LOCKS_EXCLUDED(mu);
  void Sweep() ABSL_LOCKS_EXCLUDED(mu);
  void Refuse() ABSL_LOCKS_EXCLUDED(mu);
  void DropAll() ABSL_LOCKS_EXCLUDED(mu);

  const Deps deps;
  const int processors;
  mutable Mutex mu;
  RunScheduler* owner = nullptr;  // for slots; good while anything runs
  std::vector<Lane*> waiting ABSL_GUARDED_BY(mu);
  std::vector<Run> runs ABSL_GUARDED_BY(mu);
  std::uint64_t next_run ABSL_GUARDED_BY(mu) = 1;
  std::size_t ready ABSL_GUARDED_BY(mu) = 0;    // sum of Lane::ready_
  std::size_t tickets ABSL_GUARDED_BY(mu) = 0;  // in the executor's queue
  bool reserve_out ABSL_GUARDED_BY(mu) = false;  // a ticket or a run of it, but for those that were replaced
  bool hurried ABSL_GUARDED_BY(mu) = false;
  std::size_t blocking ABSL_GUARDED_BY(mu) = 0;  // of runs, those that block an ordinary thread
  int blocked ABSL_GUARDED_BY(mu) = 0;           // processors that these take
  int used ABSL_GUARDED_BY(mu) = 0;              // processors that all runs take
  std::size_t wide ABSL_GUARDED_BY(mu) = 0;      // lanes in `waiting` and runs of more than Deps::threads
  double now_at ABSL_GUARDED_BY(mu) = 0;         // Lane::had_ of whoever was last taken
  TimePoint sweep_at ABSL_GUARDED_BY(mu) = TimePoint::max();  // what the alarm is set by
  std::optional<Alarm> alarm;  // as long as there is a scheduler
};

// In an executor's queue. Destroyed unrun: the executor has shut down.
class RunScheduler::Ticket {
 public:
  explicit Ticket(std::shared_ptr<State> state) : state_(std::move(state)) {}
  Ticket(Ticket&&) noexcept = default;
  Ticket& operator=(Ticket&&) = delete;
  ~Ticket() {
    if (state_ != nullptr) state_->Refuse();
  }
  void operator()() { std::exchange(state_, nullptr)->RunNext(false); }

 private:
  std::shared_ptr<State> state_;
};

class RunScheduler::ReserveTicket {
 public:
  explicit ReserveTicket(std::shared_ptr<State> state) : state_(std::move(state)) {}
  void operator()() { std::exchange(state_, nullptr)->RunNext(true); }

 private:
  std::shared_ptr<State> state_;
};

RunScheduler::Lane::~Lane() { HEARTH_CHECK(queue_.empty() && running_ == 0); }

bool RunScheduler::Lane::IsQuick() const { return typical_ >= 0 && typical_ < kQuickSeconds; }

RunScheduler::RunScheduler(Deps deps) : state_(std::make_shared<State>(std::move(deps))) { state_->owner = this; }

RunScheduler::~RunScheduler() {
  state_->alarm.reset();
  state_->DropAll();
  MutexLock lock(state_->mu);
  HEARTH_CHECK(state_->runs.empty());
}

void RunScheduler::Post(Lane& lane, RunJob::Ptr job) {
  const std::shared_ptr<State> state = state_;  // once posted, the request may be answered, and its service gone
  Posts posts;
  {
    MutexLock lock(state->mu);
    const TimePoint now = state->deps.clock.Now();
    if (state->hurried) lane.queue_.Hurry();
    if (lane.queue_.Push(job, now)) posts = state->Update(lane, now);
  }
  if (job != nullptr) return job->Refuse(WithRetryAfter(absl::UnavailableError("Exceeds maximum queue size"), kSoon));
  state->Do(posts);
}

void RunScheduler::SetPolicy(Lane& lane, const RunPolicy& policy) {
  Posts posts;
  {
    MutexLock lock(state_->mu);
    state_->SetPolicy(lane, policy);
    posts = state_->Update(lane, state_->deps.clock.Now());
  }
  state_->Do(posts);
}

void RunScheduler::StopBatching(Lane& lane) {
  Posts posts;
  {
    MutexLock lock(state_->mu);
    RunPolicy policy = lane.queue_.policy();
    policy.batching.enabled = false;
    state_->SetPolicy(lane, policy);
    posts = state_->Update(lane, state_->deps.clock.Now());
  }
  state_->Do(posts);
}

void RunScheduler::Hurry() {
  Posts posts;
  {
    MutexLock lock(state_->mu);
    state_->hurried = true;
    const TimePoint now = state_->deps.clock.Now();
    for (Lane* lane : state_->waiting) {
      lane->queue_.Hurry();
      state_->Count(*lane, now);
    }
    state_->Plan(posts, now);
  }
  state_->Do(posts);
}

int RunScheduler::processors() const { return state_->processors; }

RunScheduler::Counts RunScheduler::counts() const {
  MutexLock lock(state_->mu);
  Counts counts;
  for (const Lane* lane : state_->waiting) counts.waiting.emplace_back(lane->model_, lane->queue_.size());
  counts.running = state_->runs.size();
  for (const State::Run& run : state_->runs) counts.overdue += run.told ? 1 : 0;
  return counts;
}

void RunScheduler::State::SetPolicy(Lane& lane, const RunPolicy& policy) {
  lane.queue_.SetPolicy(policy);
  if (lane.listed_ && IsWide(WidthOf(lane))) --wide;
  lane.threads_ = policy.threads;
  if (lane.listed_ && IsWide(WidthOf(lane))) ++wide;
}

// What of a lane has changed is in the state's lists and sums after this.
void RunScheduler::State::Count(Lane& lane, TimePoint now) {
  std::size_t ready_now = 0;
  if (!lane.queue_.empty() && lane.HasRoom() && lane.queue_.due(now) <= now) {
    ready_now = lane.queue_.runs();
    const int limit = lane.queue_.policy().limit;
    if (limit != 0) ready_now = std::min(ready_now, static_cast<std::size_t>(limit - lane.running_));
  }
  ready += ready_now - lane.ready_;
  lane.ready_ = ready_now;
  if (lane.queue_.empty() == !lane.listed_) return;
  const std::size_t one_wide = IsWide(WidthOf(lane)) ? 1 : 0;
  if (!lane.queue_.empty()) {
    wide += one_wide;
    lane.had_ = std::max(lane.had_, now_at);
    waiting.push_back(&lane);
  } else {
    wide -= one_wide;
    *std::find(waiting.begin(), waiting.end(), &lane) = waiting.back();
    waiting.pop_back();
  }
  lane.listed_ = !lane.queue_.empty();
}

RunScheduler::Posts RunScheduler::State::Update(Lane& lane, TimePoint now) {
  Count(lane, now);
  Posts posts;
  Plan(posts, now);
  if (lane.listed_ && lane.ready_ == 0 && lane.HasRoom()) {
    const TimePoint due = lane.queue_.due(now);
    if (due > now && due < sweep_at) posts.sweep = sweep_at = due;
  }
  return posts;
}

void RunScheduler::State::Plan(Posts& posts, TimePoint now) {
  if (const std::size_t turns = Turns(now); turns > tickets) {
    posts.tickets += turns - tickets;
    tickets = turns;
  }
  if (WantsReserve(now)) posts.reserve = reserve_out = true;
  if (waiting.empty() && runs.empty()) return;
  if (const TimePoint by = now + (waiting.empty() ? kWatchEvery : kSweepEvery); by < sweep_at) posts.sweep = sweep_at = by;
}

// That may begin; the threads see to it that no more do than there are threads.
std::size_t RunScheduler::State::Turns(TimePoint now) {
  if (wide == 0) return ready;
  return NextThatFits(now) == nullptr ? 0 : std::min(ready, static_cast<std::size_t>(processors - used));
}

// Whether nobody who is quick begins on an ordinary thread before a run has ended that blocks one.
bool RunScheduler::State::IsStuck(TimePoint now) const {
  if (blocking >= deps.compute.width()) return true;
  if (wide == 0) return false;
  const Lane* next = Next();
  if (next == nullptr || WidthOf(*next) <= processors - blocked) return false;
  if (blocked == processors) return true;
  const TimePoint fits_at = FitsAt(*next, now);
  return fits_at <= now || (fits_at > now + kSoonEnough && LeastUntil(fits_at, processors - blocked, now) == nullptr);
}

bool RunScheduler::State::WantsReserve(TimePoint now) const {
  return deps.reserve != nullptr && !reserve_out && IsStuck(now) && NextOnReserve() != nullptr;
}

// What runs is in the sums from now on.
void RunScheduler::State::Begin(Run& run) {
  if (run.on_reserve) {
    reserve_out = true;  // until it ends
    return;
  }
  used += run.width;
  if (IsWide(run.width)) ++wide;
  if (!run.lane->IsQuick()) NoteBlocks(run);
}

void RunScheduler::State::End(const Run& run) {
  if (run.on_reserve) {
    if (run.replaced) {
      deps.reserve->EndReplacement();
    } else {
      reserve_out = false;
    }
    return;
  }
  used -= run.width;
  if (IsWide(run.width)) --wide;
  if (!run.blocks) return;
  --blocking;
  blocked -= run.width;
}

void RunScheduler::State::NoteSlow(Run& run) {
  if (!run.on_reserve) {
    if (!run.blocks) NoteBlocks(run);
  } else if (!run.replaced && deps.reserve->Replace()) {
    run.replaced = true;
    reserve_out = false;
  }
}

void RunScheduler::State::NoteBlocks(Run& run) {
  run.blocks = true;
  ++blocking;
  blocked += run.width;
}

// Few models have something waiting at the same time: a walk is quicker than keeping them sorted.
template <typename May>
RunScheduler::Lane* RunScheduler::State::Least(May may) const {
  Lane* best = nullptr;
  for (Lane* lane : waiting) {
    if (lane->ready_ == 0 || !may(*lane)) continue;
    if (best == nullptr || lane->had_ < best->had_ ||
        (lane->had_ == best->had_ && lane->queue_.front().posted < best->queue_.front().posted)) {
      best = lane;
    }
  }
  return best;
}

RunScheduler::Lane* RunScheduler::State::Next() const {
  return Least([](const Lane&) { return true; });
}

RunScheduler::Lane* RunScheduler::State::NextOnReserve() const {
  if (Lane* quick = Least([](const Lane& lane) { return lane.IsQuick(); })) return quick;
  return Least([&](const Lane& lane) { return lane.IsUnknown() && lane.running_ == 0 && !IsWide(WidthOf(lane)); });
}

RunScheduler::Lane* RunScheduler::State::NextThatFits(TimePoint now) {
  Lane* next = Next();
  if (wide == 0 || next == nullptr || Fits(*next)) return next;
  if (used == processors) return nullptr;
  now_at = std::max(now_at, next->had_);  // it has its turn: who comes now comes after it
  return LeastUntil(FitsAt(*next, now), processors - used, now);
}

// Of those that fit into so many processors, and will be through by then.
RunScheduler::Lane* RunScheduler::State::LeastUntil(TimePoint until, int left, TimePoint now) const {
  return Least([&](const Lane& lane) {
    return lane.typical_ >= 0 && WidthOf(lane) <= left && now + ToDuration(lane.typical_) <= until;
  });
}

// Going by what runs of the models that run have taken. Now, which is never too late, where nobody knows.
TimePoint RunScheduler::State::FitsAt(const Lane& lane, TimePoint now) const {
  std::vector<std::pair<TimePoint, int>> ends;
  for (const Run& run : runs) {
    if (run.on_reserve) continue;
    if (run.lane->typical_ < 0) return now;
    ends.emplace_back(run.started + ToDuration(run.lane->typical_), run.width);
  }
  std::sort(ends.begin(), ends.end());
  if (!ends.empty() && ends.front().first <= now) return now;  // one takes longer
  int left = processors - used;
  for (const auto& [end, width] : ends) {
    left += width;
    if (left >= WidthOf(lane)) return end;
  }
  return now;
}

void RunScheduler::State::Do(const Posts& posts) {
  const auto self = shared_from_this();
  if (posts.sweep) alarm->SetBy(*posts.sweep);
  for (std::size_t i = 0; i < posts.tickets; ++i) deps.compute.Post(Ticket(self));
  if (posts.reserve) deps.reserve->Post(ReserveTicket(self));
}

void RunScheduler::State::RunNext(bool on_reserve) {
  std::vector<RunJob::Ptr> batch;
  RunSlot slot;
  Posts posts;
  {
    MutexLock lock(mu);
    if (on_reserve) {
      reserve_out = false;
    } else {
      --tickets;
    }
    const TimePoint now = deps.clock.Now();
    Lane* lane = !on_reserve ? NextThatFits(now) : IsStuck(now) ? NextOnReserve() : nullptr;
    if (lane == nullptr) return;
    now_at = std::max(now_at, lane->had_);
    batch = lane->queue_.Take(now);
    ++lane->running_;
    const int width = WidthOf(*lane);
    const double charge = std::max(lane->typical_, kLeastCharge) * width;
    lane->had_ += charge;
    runs.push_back({.id = next_run, .lane = lane, .started = now, .charged = charge, .width = width, .on_reserve = on_reserve});
    Begin(runs.back());
    slot = RunSlot(owner, next_run++);
    posts = Update(*lane, now);
  }
  Do(posts);
  RunJob& first = *batch.front();
  first.Run(std::move(batch), std::move(slot));
}

void RunSlot::Release() {
  if (scheduler_ != nullptr) std::exchange(scheduler_, nullptr)->Finished(run_);
}

void RunScheduler::Finished(std::uint64_t id) {
  Posts posts;
  std::optional<Overdue> late;
  {
    MutexLock lock(state_->mu);
    const auto run = std::find_if(state_->runs.begin(), state_->runs.end(), [&](const State::Run& r) { return r.id == id; });
    HEARTH_CHECK(run != state_->runs.end());
    const TimePoint now = state_->deps.clock.Now();
    Lane& lane = *run->lane;
    const double took = ToSeconds(now - run->started);
    if (run->told) late = State::OverdueOf(*run, now);
    lane.had_ += std::max(took, kLeastCharge) * run->width - run->charged;
    lane.typical_ = lane.typical_ < 0 ? took : lane.typical_ + (took - lane.typical_) / kAveragedOver;
    --lane.running_;
    state_->End(*run);
    *run = state_->runs.back();
    state_->runs.pop_back();
    posts = state_->Update(lane, now);
  }
  state_->Do(posts);
  if (!late || !state_->deps.overdue) return;
  late->ended = true;
  state_->deps.overdue(*late);
}

RunScheduler::Overdue RunScheduler::State::OverdueOf(const Run& run, TimePoint now) {
  return {run.lane->model_, now - run.started, ToDuration(run.lane->typical_)};
}

void RunScheduler::State::Sweep() {
  std::vector<RunQueue::Refusal> refused;
  std::vector<Overdue> overdue;
  Posts posts;
  {
    MutexLock lock(mu);
    sweep_at = TimePoint::max();
    const TimePoint now = deps.clock.Now();
    TimePoint next_due = TimePoint::max();
    const std::vector<Lane*> lanes = waiting;
    for (Lane* lane : lanes) {
      for (RunQueue::Refusal& refusal : lane->queue_.Expire(now)) refused.push_back(std::move(refusal));
      Count(*lane, now);
      if (lane->listed_ && lane->ready_ == 0 && lane->HasRoom()) next_due = std::min(next_due, lane->queue_.due(now));
    }
    for (Run& run : runs) {
      const double so_far = ToSeconds(now - run.started);
      if (so_far >= kQuickSeconds) NoteSlow(run);
      if (run.told || run.lane->typical_ < 0) continue;
      if (so_far < kOverdueSeconds || so_far < kOverdueTimes * run.lane->typical_) continue;
      run.told = true;
      overdue.push_back(OverdueOf(run, now));
    }
    Plan(posts, now);
    if (next_due < sweep_at) posts.sweep = sweep_at = next_due;
  }
  Do(posts);
  if (deps.overdue) {
    for (const Overdue& run : overdue) deps.overdue(run);
  }
  for (RunQueue::Refusal& refusal : refused) {
    refusal.first->Refuse(std::move(refusal.second));
    refusal.first.reset();
  }
}

// The executor has shut down: nobody runs any more.
void RunScheduler::State::Refuse() {
  {
    MutexLock lock(mu);
    --tickets;
  }
  DropAll();
}

void RunScheduler::State::DropAll() {
  std::vector<RunJob::Ptr> dropped;  // destroyed after the lock is gone
  MutexLock lock(mu);
  const TimePoint now = deps.clock.Now();
  while (!waiting.empty()) {
    Lane& lane = *waiting.back();
    for (RunJob::Ptr& job : lane.queue_.Drain()) dropped.push_back(std::move(job));
    Count(lane, now);
  }
}

}  // namespace hearth

#include <algorithm>
#include <map>
#include <mutex>

#include "namespaces/registry.h"

namespace prism {
namespace {

constexpr std::size_t kMostTopics = 100;  // that are looked at
constexpr std::size_t kMostGroups = 50;   // with a series of their own: undeclared ones are named by clients
constexpr Clock::duration kLeastPause = std::chrono::seconds(1);
constexpr Clock::duration kLongestPause = std::chrono::seconds(30);  // also after a look that a stall made long
constexpr int kPauses = 50;                                          // a look may take this part of the time

}  // namespace

class NamespaceMeasures {
 public:
  explicit NamespaceMeasures(Metrics& metrics) : metrics_(metrics) {}

  // False: somebody is looking, or it is too early.
  bool begin() {
    const std::lock_guard lock(mutex_);
    if (busy_ || Clock::now() < next_) return false;
    busy_ = true;
    begun_ = Clock::now();
    return true;
  }
  void end(const std::string& namespace_name, bool good) {
    if (!good) {
      metrics_
          .counter(
              "prism_measure_errors_total",
              "Looks at what a namespace holds, made when the metrics are shown, that failed: rows that wait, bytes "
              "that are held and the lag of groups are then what they were before.",
              {"namespace"})
          .with({namespace_name})
          .add();
    }
    const std::lock_guard lock(mutex_);
    busy_ = false;
    const auto now = Clock::now();
    next_ = now + std::clamp<Clock::duration>(kPauses * (now - begun_), kLeastPause, kLongestPause);
  }

  void set_lag(const std::string& namespace_name, const std::map<std::string, double>& by_group) {
    const auto family =
        metrics_.gauge("prism_consumer_lag_messages",
                       "Messages on the log that a consumer group has not acknowledged. Every process shows the same.",
                       {"namespace", "group"});
    std::map<std::string, std::shared_ptr<Gauge>> present;
    for (const auto& [group, lag] : by_group) {
      const bool other = present.size() >= kMostGroups;
      auto& gauge = present[other ? "_other" : group];
      if (gauge == nullptr) {
        gauge = family.held({namespace_name, other ? "_other" : group});
        gauge->set(lag);
      } else {
        gauge->add(lag);
      }
    }
    const std::lock_guard lock(mutex_);
    lags_ = std::move(present);  // those that are gone are not shown any more
  }

 private:
  Metrics& metrics_;
  std::mutex mutex_;
  bool busy_ = false;  // guarded by mutex_, as all below
  Clock::time_point begun_{}, next_{};
  std::map<std::string, std::shared_ptr<Gauge>> lags_;
};

std::shared_ptr<NamespaceMeasures> make_measures(Metrics& metrics) {
  return std::make_shared<NamespaceMeasures>(metrics);
}

namespace {

Task<Result<std::map<std::string, double>>> lags(Context context, std::shared_ptr<EventLog> log,
                                                 std::vector<std::string> names, std::vector<std::string> declared) {
  std::map<std::string, double> by_group;
  for (const auto& group : declared) by_group[group] = 0;
  if (names.size() > kMostTopics) names.resize(kMostTopics);
  for (const auto& name : names) {
    const auto groups = co_await log->groups(context, name);
    if (!groups && groups.error().code == Code::not_found) continue;  // noted, and not made yet
    if (!groups) co_return std::unexpected(groups.error());
    for (const auto& group : *groups) {
      PRISM_CO_TRY(const auto floors, co_await log->floors(context, name, group));
      double& lag = by_group[group];
      for (const auto& floor : floors) {
        const auto from = std::max(floor.acked_below, floor.begin);
        lag += static_cast<double>(floor.end - std::min(floor.end, from));
      }
    }
  }
  co_return by_group;
}

}  // namespace

Task<bool> Namespace::measure(Context context) const {
  const auto measures = measures_;
  if (measures == nullptr || !measures->begin()) co_return false;
  bool good = true;
  for (const auto& pattern : patterns_) good = (co_await pattern->measure(context)).has_value() && good;
  if (auto names = co_await present_topics(context)) {
    const auto by_group = co_await lags(context, log_, std::move(*names), spec_.consumer_groups);
    if (by_group) measures->set_lag(spec_.name, *by_group);
    good = good && by_group;
  } else {
    good = false;
  }
  measures->end(spec_.name, good);
  co_return good;
}

Task<void> Registry::measure(Context context) const {
  for (const auto& open : open_backends()) open->health->show(open->backend->connections());
  const auto namespaces = all();
  std::vector<Task<bool>> looks;
  looks.reserve(namespaces.size());
  for (const auto& ns : namespaces) looks.push_back(ns->measure(context));
  co_await when_all(std::move(looks));
}

}  // namespace prism

#include "telemetry/metrics.h"

#include <dirent.h>
#include <prometheus/check_names.h>
#include <prometheus/metric_family.h>
#include <prometheus/text_serializer.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <limits>
#include <map>
#include <mutex>
#include <sstream>
#include <string_view>
#include <type_traits>
#include <variant>

#include "base/text.h"

namespace prism {

namespace detail {

using Series = std::variant<Counter, Gauge, Histogram>;

struct CallbackSlot {
  LabelValues values;
  std::function<double()> read;
  const Histogram* histogram = nullptr;  // instead of `read`
};

// `kept` while the family lives, or `held` as long as others do.
struct Slot {
  std::shared_ptr<Series> kept;
  std::weak_ptr<Series> held;
  std::shared_ptr<Series> get() const { return kept != nullptr ? kept : held.lock(); }
};

struct FamilyState {
  std::string name;
  std::string help;
  prometheus::MetricType type;
  std::vector<std::string> labels;
  std::vector<double> bounds;
  std::size_t max_series;

  std::mutex mutex;
  std::map<LabelValues, Slot> series;                    // guarded by mutex
  std::map<std::string, std::string> aliases;            // name -> help; guarded by mutex
  std::mutex callbacks_mutex;                            // held while they are called
  std::vector<std::shared_ptr<CallbackSlot>> callbacks;  // guarded by callbacks_mutex; in order of registration

  void check(const LabelValues& values) const;
  std::shared_ptr<Series> find(const LabelValues& values, bool keep);
  std::vector<prometheus::MetricFamily> collect();
};

namespace {

[[noreturn]] void misuse(const std::string& name, const char* what) {
  std::fprintf(stderr, "prism: metric %s: %s\n", name.c_str(), what);
  std::abort();
}

// The format is UTF-8: what is not becomes '?', since one bad label would make the whole page unreadable.
std::string printable(const std::string& text) {
  std::string out;
  out.reserve(text.size());
  for (std::size_t i = 0; i < text.size();) {
    const std::size_t n = utf8_sequence(std::string_view(text).substr(i));
    if (n > 0) {
      out.append(text, i, n);
    } else {
      out += '?';
    }
    i += std::max<std::size_t>(n, 1);
  }
  return out;
}

void put(const Histogram& histogram, prometheus::ClientMetric& metric) {
  std::uint64_t below = 0;
  for (std::size_t i = 0; i <= histogram.bounds().size(); ++i) {
    below += histogram.in_bucket(i);
    const bool last = i == histogram.bounds().size();
    metric.histogram.bucket.push_back({below, last ? std::numeric_limits<double>::infinity() : histogram.bounds()[i]});
  }
  metric.histogram.sample_count = below;
  metric.histogram.sample_sum = histogram.sum();
}

}  // namespace

void FamilyState::check(const LabelValues& values) const {
  if (values.size() != labels.size()) misuse(name, "another number of label values than of labels");
}

std::shared_ptr<Series> FamilyState::find(const LabelValues& values, bool keep) {
  check(values);
  const std::lock_guard lock(mutex);
  auto found = series.find(values);
  if (found == series.end() && series.size() >= max_series)
    std::erase_if(series, [](const auto& entry) { return entry.second.get() == nullptr; });
  if (found == series.end()) {
    const bool full = series.size() >= max_series;
    found = series.try_emplace(full ? LabelValues(labels.size(), "_other") : values).first;
  }
  Slot& slot = found->second;
  std::shared_ptr<Series> present = slot.get();
  if (present == nullptr) {
    switch (type) {
      case prometheus::MetricType::Counter:
        present = std::make_shared<Series>(std::in_place_type<Counter>);
        break;
      case prometheus::MetricType::Gauge:
        present = std::make_shared<Series>(std::in_place_type<Gauge>);
        break;
      default:
        present = std::make_shared<Series>(std::in_place_type<Histogram>, bounds);
        break;
    }
    slot.held = present;
  }
  if (keep) slot.kept = present;
  return present;
}

std::vector<prometheus::MetricFamily> FamilyState::collect() {
  std::vector<prometheus::MetricFamily> out;
  out.push_back({name, help, type, {}});
  std::map<LabelValues, prometheus::ClientMetric> metrics;
  {
    const std::lock_guard lock(mutex);
    for (const auto& [second, text] : aliases) out.push_back({second, text, type, {}});
    for (const auto& [values, slot] : series) {
      const auto one = slot.get();
      if (one == nullptr) continue;
      if (const auto* gauge = std::get_if<Gauge>(one.get())) {
        if (const double value = gauge->value(); !std::isnan(value)) metrics[values].gauge.value = value;
        continue;
      }
      prometheus::ClientMetric& metric = metrics[values];
      if (const auto* counter = std::get_if<Counter>(one.get())) {
        metric.counter.value = static_cast<double>(counter->value());
      } else {
        put(std::get<Histogram>(*one), metric);
      }
    }
  }
  {
    const std::lock_guard lock(callbacks_mutex);
    for (const auto& slot : callbacks) {
      if (slot->histogram != nullptr) {
        put(*slot->histogram, metrics[slot->values]);
        continue;
      }
      const double value = slot->read();
      if (std::isnan(value)) continue;
      prometheus::ClientMetric& metric = metrics[slot->values];
      (type == prometheus::MetricType::Counter ? metric.counter.value : metric.gauge.value) = value;
    }
  }
  for (auto& [values, metric] : metrics) {
    for (std::size_t i = 0; i < labels.size(); ++i) metric.label.push_back({labels[i], printable(values[i])});
    for (auto& family : out) family.metric.push_back(metric);
  }
  std::erase_if(out, [](const auto& family) { return family.metric.empty(); });
  return out;
}

}  // namespace detail

void MetricCallback::reset() noexcept {
  if (family_ == nullptr) return;
  {
    const std::lock_guard lock(family_->callbacks_mutex);
    std::erase(family_->callbacks, slot_);
  }
  slot_.reset();
  family_.reset();
}

template <class T>
T& MetricFamily<T>::with(const LabelValues& values) const {
  return std::get<T>(*state_->find(values, true));
}

template <class T>
std::shared_ptr<T> MetricFamily<T>::held(const LabelValues& values) const {
  auto series = state_->find(values, false);
  T* const value = &std::get<T>(*series);
  return {std::move(series), value};
}

template <class T>
MetricCallback MetricFamily<T>::callback(LabelValues values, std::function<double()> read) const {
  state_->check(values);
  if constexpr (std::is_same_v<T, Histogram>) detail::misuse(state_->name, "a histogram cannot be a callback");
  auto slot = std::make_shared<detail::CallbackSlot>(std::move(values), std::move(read), nullptr);
  const std::lock_guard lock(state_->callbacks_mutex);
  state_->callbacks.push_back(slot);
  return MetricCallback(state_, std::move(slot));
}

template <class T>
MetricCallback MetricFamily<T>::show(LabelValues values, const T& kept) const {
  state_->check(values);
  auto slot = std::make_shared<detail::CallbackSlot>();
  slot->values = std::move(values);
  if constexpr (std::is_same_v<T, Histogram>) {
    slot->histogram = &kept;
  } else {
    slot->read = [&kept] { return static_cast<double>(kept.value()); };
  }
  const std::lock_guard lock(state_->callbacks_mutex);
  state_->callbacks.push_back(slot);
  return MetricCallback(state_, std::move(slot));
}

template class MetricFamily<Counter>;
template class MetricFamily<Gauge>;
template class MetricFamily<Histogram>;

struct Metrics::Impl {
  mutable std::mutex mutex;
  std::map<std::string, std::shared_ptr<detail::FamilyState>> families;  // guarded by mutex

  std::shared_ptr<detail::FamilyState> declare(std::string name, std::string help, prometheus::MetricType type,
                                               std::vector<std::string> labels, std::vector<double> bounds,
                                               std::size_t max_series) {
    if (!prometheus::CheckMetricName(name)) detail::misuse(name, "not a legal name");
    for (const std::string& label : labels) {
      if (!prometheus::CheckLabelName(label) || label == "le") detail::misuse(name, "has a label without a legal name");
    }
    if (help.empty()) detail::misuse(name, "has no help text");
    if (std::ranges::adjacent_find(bounds, std::greater_equal<>()) != bounds.end())
      detail::misuse(name, "has bounds that do not ascend");
    const std::lock_guard lock(mutex);
    auto& family = families[name];
    if (family == nullptr) {
      family = std::make_shared<detail::FamilyState>();
      family->name = std::move(name);
      family->help = std::move(help);
      family->type = type;
      family->labels = std::move(labels);
      family->bounds = std::move(bounds);
      family->max_series = std::max<std::size_t>(max_series, 1);
    } else if (family->type != type || family->help != help || family->labels != labels || family->bounds != bounds) {
      detail::misuse(name, "is declared twice, differently");
    }
    return family;
  }
};

Metrics::Metrics() : impl_(std::make_unique<Impl>()) {}
Metrics::~Metrics() = default;

MetricFamily<Counter> Metrics::counter(std::string name, std::string help, std::vector<std::string> labels,
                                       std::size_t max_series) {
  return MetricFamily<Counter>(impl_->declare(std::move(name), std::move(help), prometheus::MetricType::Counter,
                                              std::move(labels), {}, max_series));
}

MetricFamily<Gauge> Metrics::gauge(std::string name, std::string help, std::vector<std::string> labels,
                                   std::size_t max_series) {
  return MetricFamily<Gauge>(impl_->declare(std::move(name), std::move(help), prometheus::MetricType::Gauge,
                                            std::move(labels), {}, max_series));
}

MetricFamily<Histogram> Metrics::histogram(std::string name, std::string help, std::vector<std::string> labels,
                                           std::vector<double> bounds, std::size_t max_series) {
  return MetricFamily<Histogram>(impl_->declare(std::move(name), std::move(help), prometheus::MetricType::Histogram,
                                                std::move(labels), std::move(bounds), max_series));
}

void Metrics::alias(const std::string& name, std::string second_name, std::string help) {
  const std::lock_guard lock(impl_->mutex);
  const auto found = impl_->families.find(name);
  if (found == impl_->families.end()) detail::misuse(name, "is not declared");
  if (!prometheus::CheckMetricName(second_name)) detail::misuse(second_name, "not a legal name");
  const std::lock_guard family_lock(found->second->mutex);
  found->second->aliases.insert_or_assign(std::move(second_name), std::move(help));
}

std::vector<double> Metrics::bytes() {
  std::vector<double> bounds;
  for (double b = 256; b <= 4294967296.0; b *= 4) bounds.push_back(b);
  return bounds;
}

std::string Metrics::expose() const {
  std::vector<std::shared_ptr<detail::FamilyState>> families;
  {
    const std::lock_guard lock(impl_->mutex);
    for (const auto& [name, family] : impl_->families) families.push_back(family);
  }
  std::vector<prometheus::MetricFamily> collected;
  for (const auto& family : families) std::ranges::move(family->collect(), std::back_inserter(collected));
  std::ranges::sort(collected, {}, &prometheus::MetricFamily::name);
  std::ostringstream out;
  prometheus::TextSerializer().Serialize(out, collected);
  return std::move(out).str();
}

namespace {

double status_field(std::string_view field) {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (line.starts_with(field)) return std::strtod(line.c_str() + field.size(), nullptr);
  }
  return 0;
}

double cpu_seconds() {
  rusage usage{};
  ::getrusage(RUSAGE_SELF, &usage);
  const auto seconds = [](const timeval& t) {
    return static_cast<double>(t.tv_sec) + 1e-6 * static_cast<double>(t.tv_usec);
  };
  return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

double open_fds() {
  DIR* const dir = ::opendir("/proc/self/fd");
  if (dir == nullptr) return 0;
  double n = 0;
  while (const dirent* entry = ::readdir(dir)) n += entry->d_name[0] == '.' ? 0 : 1;
  ::closedir(dir);
  return n - 1;  // without the one that was open to count them
}

double max_fds() {
  rlimit limit{};
  ::getrlimit(RLIMIT_NOFILE, &limit);
  return static_cast<double>(limit.rlim_cur);
}

// Seconds since 1970: the boot's time plus the process's start after it.
double start_seconds() {
  std::ifstream stat("/proc/self/stat");
  std::string line;
  std::getline(stat, line);
  const std::size_t after_name = line.rfind(')');  // the name may contain anything
  if (after_name == std::string::npos) return 0;
  std::istringstream fields(line.substr(after_name + 1));
  std::string skipped;
  for (int i = 0; i < 19; ++i) fields >> skipped;
  double ticks = 0;
  fields >> ticks;
  std::ifstream system("/proc/stat");
  while (std::getline(system, line)) {
    if (line.starts_with("btime "))
      return std::strtod(line.c_str() + 6, nullptr) + ticks / static_cast<double>(::sysconf(_SC_CLK_TCK));
  }
  return 0;
}

}  // namespace

ProcessMetrics::ProcessMetrics(Metrics& metrics) {
  metrics.gauge("prism_build_info", "Always 1; the version is the label.", {"version"}).with({PRISM_VERSION}).set(1);
  const auto gauge = [&](const char* name, const char* help, std::function<double()> read) {
    callbacks_.push_back(metrics.gauge(name, help).callback({}, std::move(read)));
  };
  const auto begun = std::chrono::steady_clock::now();
  gauge("prism_uptime_seconds", "Time since the process began to serve.",
        [begun] { return std::chrono::duration<double>(std::chrono::steady_clock::now() - begun).count(); });
  gauge("process_resident_memory_bytes", "Resident memory.", [] { return status_field("VmRSS:") * 1024; });
  callbacks_.push_back(metrics.counter("process_cpu_seconds_total", "User and system CPU time spent.").callback({}, [] {
    return cpu_seconds();
  }));
  gauge("process_open_fds", "Open file descriptors.", [] { return open_fds(); });
  gauge("process_max_fds", "Limit of open file descriptors.", [] { return max_fds(); });
  gauge("process_threads", "Threads.", [] { return status_field("Threads:"); });
  gauge("process_start_time_seconds", "Start of the process, seconds since 1970.",
        [start = start_seconds()] { return start; });
}

}  // namespace prism

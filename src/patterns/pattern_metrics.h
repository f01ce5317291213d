// The series of one namespace's pattern: made by the pattern while it is assembled, shown as long as it lives.
#pragma once

#include <limits>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "telemetry/metrics.h"

namespace prism {

// Where a namespace says `observability: {pattern_metrics: false}` everything works the same and nothing is shown.
class PatternMetrics {
 public:
  PatternMetrics(Metrics& metrics, std::string namespace_name, bool shown)
      : metrics_(metrics), namespace_name_(std::move(namespace_name)), shown_(shown) {}

  // A second name for the same measurements: RFC-009 and RFC-014 call some of them differently.
  struct Also {
    std::string name, help;
  };

  std::shared_ptr<Counter> counter(const std::string& name, std::string help, Also also = {}) const {
    if (!shown_) return std::make_shared<Counter>();
    return series(metrics_.counter(name, std::move(help), {"namespace"}), name, std::move(also));
  }
  // Not known (NaN) until it is set, by this assembly of the namespace or by one that still lives.
  std::shared_ptr<Gauge> gauge(const std::string& name, std::string help, Also also = {}) const {
    auto made = shown_ ? series(metrics_.gauge(name, std::move(help), {"namespace"}), name, std::move(also))
                       : std::make_shared<Gauge>();
    if (made.use_count() == 1) made->set(std::numeric_limits<double>::quiet_NaN());
    return made;
  }
  std::shared_ptr<Histogram> histogram(const std::string& name, std::string help,
                                       std::vector<double> bounds = Histogram::seconds()) const {
    if (!shown_) return std::make_shared<Histogram>(bounds);
    return series(metrics_.histogram(name, std::move(help), {"namespace"}, std::move(bounds)), name, {});
  }

 private:
  template <class T>
  std::shared_ptr<T> series(const MetricFamily<T>& family, const std::string& name, Also also) const {
    if (!also.name.empty()) metrics_.alias(name, std::move(also.name), std::move(also.help));
    return family.held({namespace_name_});
  }

  Metrics& metrics_;
  const std::string namespace_name_;
  const bool shown_;
};

}  // namespace prism

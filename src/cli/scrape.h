// What a running server measures, read from its /metrics.
#pragma once

#include <chrono>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"

namespace prism::cli {

using Labels = std::map<std::string, std::string, std::less<>>;

class Scrape {
 public:
  // The Prometheus text format; METRICS_UNREADABLE.
  static Result<Scrape> parse(std::string_view text);
  // Asks the admin server.
  static Result<Scrape> take(const std::string& address);

  using Samples = std::map<Labels, double>;
  const Samples& of(std::string_view name) const;  // empty: there are none
  // The sum of all samples with these labels; 0 where there are none.
  double sum(std::string_view name, const Labels& labels = {}) const;

  std::chrono::steady_clock::time_point at{};

 private:
  std::map<std::string, Samples, std::less<>> samples_;
};

// What has happened between two scrapes. A counter that became smaller began anew.
class Change {
 public:
  Change(Scrape before, Scrape after) : before_(std::move(before)), after_(std::move(after)) {}
  const Scrape& after() const noexcept { return after_; }
  double seconds() const noexcept { return std::chrono::duration<double>(after_.at - before_.at).count(); }

  // Of all samples with these labels together.
  double of(std::string_view name, const Labels& labels = {}) const;
  // Of a histogram: how many observations, their mean, and a quantile (0 to 1) read off the buckets; 0 without any.
  double count(std::string_view name, const Labels& labels) const { return of(std::string(name) + "_count", labels); }
  double total(std::string_view name, const Labels& labels) const { return of(std::string(name) + "_sum", labels); }
  double quantile(std::string_view name, const Labels& labels, double q) const;
  // The values that a label has, of the samples with these labels; sorted.
  std::vector<std::string> values(std::string_view name, std::string_view label, const Labels& labels = {}) const;

 private:
  double change(std::string_view name, const Labels& labels, double value) const;
  Scrape before_, after_;
};

}  // namespace prism::cli

#include "cli/scrape.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <limits>
#include <set>

#include "admin/client.h"

namespace prism::cli {
namespace {

constexpr std::chrono::seconds kPatience{10};

bool matches(const Labels& sample, const Labels& wanted) {
  return std::ranges::all_of(wanted, [&](const auto& label) {
    const auto found = sample.find(label.first);
    return found != sample.end() && found->second == label.second;
  });
}

std::optional<double> to_number(std::string_view text) {
  if (text == "+Inf") return std::numeric_limits<double>::infinity();
  if (text == "-Inf") return -std::numeric_limits<double>::infinity();
  if (text == "NaN" || text == "Nan") return std::numeric_limits<double>::quiet_NaN();
  double value = 0;
  const auto [end, problem] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (problem != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

// One line: name{label="value",...} number
bool parse_line(std::string_view line, std::string& name, Labels& labels, double& value) {
  const auto brace = line.find('{');
  auto rest = line;
  if (brace != std::string_view::npos) {
    name = line.substr(0, brace);
    rest.remove_prefix(brace + 1);
    while (!rest.empty() && rest.front() != '}') {
      const auto equals = rest.find("=\"");
      if (equals == std::string_view::npos) return false;
      const std::string label(rest.substr(0, equals));
      rest.remove_prefix(equals + 2);
      std::string text;
      while (!rest.empty() && rest.front() != '"') {
        if (rest.front() == '\\' && rest.size() > 1) {
          rest.remove_prefix(1);
          text += rest.front() == 'n' ? '\n' : rest.front();
        } else {
          text += rest.front();
        }
        rest.remove_prefix(1);
      }
      if (rest.empty()) return false;
      rest.remove_prefix(1);
      if (!rest.empty() && rest.front() == ',') rest.remove_prefix(1);
      labels.emplace(label, std::move(text));
    }
    if (rest.empty()) return false;
    rest.remove_prefix(1);
  } else {
    name = line.substr(0, line.find(' '));
    rest.remove_prefix(name.size());
  }
  rest.remove_prefix(std::min(rest.find_first_not_of(' '), rest.size()));
  const auto number = to_number(rest.substr(0, rest.find(' ')));
  if (!number) return false;
  value = *number;
  return true;
}

}  // namespace

Result<Scrape> Scrape::parse(std::string_view text) {
  Scrape scrape;
  scrape.at = std::chrono::steady_clock::now();
  while (!text.empty()) {
    const auto line = text.substr(0, text.find('\n'));
    text.remove_prefix(std::min(line.size() + 1, text.size()));
    if (line.empty() || line.front() == '#') continue;
    std::string name;
    Labels labels;
    double value = 0;
    if (!parse_line(line, name, labels, value)) {
      return fail(Code::data_loss, "METRICS_UNREADABLE", "what came is not in Prometheus' text format",
                  "is it the admin address of a Prism?");
    }
    scrape.samples_[name].insert_or_assign(std::move(labels), value);
  }
  return scrape;
}

Result<Scrape> Scrape::take(const std::string& address) {
  PRISM_TRY(const auto answer, admin::get(address, "/metrics", kPatience));
  if (answer.status != 200) {
    return fail(Code::data_loss, "METRICS_UNREADABLE",
                address + " answers /metrics with status " + std::to_string(answer.status),
                "is it the admin address of a Prism?");
  }
  return parse(answer.body);
}

const Scrape::Samples& Scrape::of(std::string_view name) const {
  static const Samples none;
  const auto found = samples_.find(name);
  return found != samples_.end() ? found->second : none;
}

double Scrape::sum(std::string_view name, const Labels& labels) const {
  double total = 0;
  for (const auto& [sample, value] : of(name)) total += matches(sample, labels) ? value : 0;
  return total;
}

double Change::change(std::string_view name, const Labels& labels, double value) const {
  const auto& earlier = before_.of(name);
  const auto found = earlier.find(labels);
  return value - (found != earlier.end() && found->second <= value ? found->second : 0);
}

double Change::of(std::string_view name, const Labels& labels) const {
  double total = 0;
  for (const auto& [sample, value] : after_.of(name)) {
    if (matches(sample, labels)) total += change(name, sample, value);
  }
  return total;
}

double Change::quantile(std::string_view name, const Labels& labels, double q) const {
  const std::string buckets = std::string(name) + "_bucket";
  std::map<double, double> below;  // by upper bound: how many are not above it
  for (const auto& [sample, value] : after_.of(buckets)) {
    const auto bound = sample.find("le");
    if (bound == sample.end() || !matches(sample, labels)) continue;
    below[to_number(bound->second).value_or(0)] += change(buckets, sample, value);
  }
  if (below.empty() || below.rbegin()->second <= 0) return 0;
  const double rank = q * below.rbegin()->second;
  double lower = 0, lower_count = 0;
  for (const auto& [bound, count] : below) {
    if (count >= rank) {
      if (std::isinf(bound)) return lower;  // above all bounds: at least this
      return lower + (bound - lower) * (count > lower_count ? (rank - lower_count) / (count - lower_count) : 0);
    }
    lower = bound;
    lower_count = count;
  }
  return lower;
}

std::vector<std::string> Change::values(std::string_view name, std::string_view label, const Labels& labels) const {
  std::set<std::string> found;
  for (const auto& [sample, value] : after_.of(name)) {
    if (!matches(sample, labels)) continue;
    if (const auto it = sample.find(label); it != sample.end()) found.insert(it->second);
  }
  return {found.begin(), found.end()};
}

}  // namespace prism::cli

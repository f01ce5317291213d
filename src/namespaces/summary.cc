#include "namespaces/summary.h"

#include <algorithm>
#include <array>
#include <utility>

namespace prism {
namespace {

constexpr std::size_t kWidth = 110;  // of a line of text

constexpr std::array kApis = {ClientApi::pubsub,   ClientApi::queue, ClientApi::transact, ClientApi::reader,
                              ClientApi::keyvalue, ClientApi::cache, ClientApi::events,   ClientApi::views};

std::string joined(const std::vector<std::string>& parts, std::string_view by) {
  std::string out;
  for (const auto& part : parts) out += (out.empty() ? std::string() : std::string(by)) + part;
  return out;
}

// Breaks at spaces; further lines begin with `indent`.
std::string wrapped(const std::string& text, std::size_t indent) {
  std::string out;
  std::size_t column = indent;
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t end = std::min(text.find(' ', at), text.size());
    const std::size_t length = end - at;
    if (column > indent && column + 1 + length > kWidth) {
      out += "\n" + std::string(indent, ' ');
      column = indent;
    } else if (column > indent) {
      out += ' ';
      ++column;
    }
    out += text.substr(at, length);
    column += length;
    at = end + 1;
  }
  return out;
}

class Lines {
 public:
  // "  label      text", and below it reasons at the text's column.
  void add(std::string_view label, const std::string& text) {
    std::string head = "  " + std::string(label);
    head.resize(kIndent, ' ');
    out_ += head + wrapped(text, kIndent) + "\n";
  }
  void because(const Because& because) {
    out_ += std::string(kIndent, ' ') + "- " + wrapped(because.step + ": " + because.why, kIndent + 2) + "\n";
  }
  std::string take() { return std::move(out_); }

 private:
  static constexpr std::size_t kIndent = 15;
  std::string out_;
};

template <class Level>
void add_claim(Lines& lines, std::string_view label, const Claim<Level>& claim) {
  if (claim.text.empty()) return;
  lines.add(label, claim.text);
  for (const auto& because : claim.because) lines.because(because);
}

std::string survival_text(const Survival& survival) {
  const std::array<std::pair<std::string_view, Survives>, 4> events = {{
      {"a killed process", survival.process_kill},
      {"a host's loss of power", survival.power_loss},
      {"the loss of a disk or server", survival.disk_loss},
      {"a loss of power everywhere", survival.site_power_loss},
  }};
  std::string out;
  for (const Survives level : {Survives::yes, Survives::depends, Survives::no}) {
    std::vector<std::string> names;
    for (const auto& [name, survives] : events) {
      if (survives == level) names.emplace_back(name);
    }
    if (names.empty()) continue;
    if (!out.empty()) out += "; ";
    out += level == Survives::yes       ? "survives "
           : level == Survives::depends ? "survives only if the backends are set up for it: "
                                        : "does not survive ";
    out += joined(names, ", ");
  }
  return out;
}

BackendSummary::Binding binding(const FileSpec& file, const BackendType* type, const std::string& name, bool embedded) {
  if (embedded && type != nullptr && type->embed) return BackendSummary::Binding::embedded;
  if (type == nullptr || !type->connect) return BackendSummary::Binding::no_connector;
  const auto connections = file.connections();
  return std::ranges::find(connections, name, &BackendSpec::name) != connections.end()
             ? BackendSummary::Binding::configured
             : BackendSummary::Binding::not_configured;
}

}  // namespace

std::string_view to_string(BackendSummary::Binding binding) noexcept {
  switch (binding) {
    case BackendSummary::Binding::embedded:
      return "embedded";
    case BackendSummary::Binding::configured:
      return "configured";
    case BackendSummary::Binding::not_configured:
      return "not-configured";
    case BackendSummary::Binding::no_connector:
      return "no-connector";
  }
  return "not-configured";
}

NamespaceSummary summarize(const FileSpec& file, const NamespaceSpec& ns, const Components& components, bool embedded) {
  const Catalogue catalogue(components);
  const Composition composition = compose(ns, catalogue);
  NamespaceSummary out;
  out.name = ns.name;
  out.api = ns.api();
  for (const ClientApi api : kApis) {
    if (ns.serves(api)) out.apis.emplace_back(to_string(api));
  }
  out.patterns = composition.chain;
  out.chain = composition.chain;
  out.beside = composition.beside;
  out.reordered = composition.reordered;
  out.consumer_groups = ns.consumer_groups;
  out.options = options_of(ns, components);
  out.guarantees = promise(file, ns, components, catalogue, embedded).guarantees;

  const std::string log = log_backend(ns, catalogue);
  const auto use = [&](const std::string& name, std::string role) {
    const auto known = std::ranges::find(out.backends, name, &BackendSummary::name);
    if (known != out.backends.end()) {
      if (std::ranges::find(known->roles, role) == known->roles.end()) known->roles.push_back(std::move(role));
      return;
    }
    const BackendType* type = backend_type(file, components, name);
    out.backends.push_back({.name = name,
                            .type = type != nullptr ? std::string(type->name) : std::string(),
                            .roles = {std::move(role)},
                            .binding = binding(file, type, name, embedded),
                            .survival = survival_of(file, components, name,
                                                    name == log ? ns.backend.replication : std::nullopt, embedded)});
  };
  if (!log.empty()) {
    out.chain.push_back(log);
    use(log, "the namespace's backend");
  }
  for (const UsedBackend& used : used_backends(ns, catalogue)) {
    if (!used.option.empty()) use(used.backend, used.pattern + ": " + used.option);
  }
  if (!ns.state.empty()) use(ns.state, "state");

  std::vector<std::string> all = composition.chain;
  all.insert(all.end(), composition.beside.begin(), composition.beside.end());
  for (const std::string& name : all) {
    const PatternInfo& info = *catalogue.find(name);
    const auto spec =
        std::ranges::find_if(ns.patterns, [&](const PatternSpec& each) { return each.enabled && each.type == name; });
    if (info.jobs == nullptr || spec == ns.patterns.end()) continue;
    for (PlannedJob& job : info.jobs(spec->options)) {
      job.name = ns.name + "/" + job.name;
      out.jobs.push_back(std::move(job));
    }
  }
  return out;
}

std::string format_text(const NamespaceSummary& summary) {
  Lines lines;
  lines.add("api", joined(summary.apis, ", "));
  lines.add("chain", joined(summary.chain, " -> "));
  if (!summary.beside.empty()) lines.add("beside", joined(summary.beside, ", "));
  if (!summary.reordered.empty()) lines.add("order", summary.reordered);
  if (!summary.consumer_groups.empty()) lines.add("groups", joined(summary.consumer_groups, ", "));
  for (const auto& job : summary.jobs) {
    lines.add(&job == summary.jobs.data() ? "jobs" : "", job.name + ": " + job.does);
  }
  for (const auto& backend : summary.backends) {
    std::string text = backend.name;
    if (backend.type != backend.name) text += " (" + backend.type + ")";
    text += ": " + joined(backend.roles, ", ") + "; ";
    switch (backend.binding) {
      case BackendSummary::Binding::embedded:
        text += "its embedded twin";
        break;
      case BackendSummary::Binding::configured:
        text += "configured";
        break;
      case BackendSummary::Binding::not_configured:
        text += "not configured, served by its embedded twin only";
        break;
      case BackendSummary::Binding::no_connector:
        text += "no connector in this version, served by its embedded twin only";
        break;
    }
    lines.add(&backend == summary.backends.data() ? "backends" : "", text);
  }
  const Guarantees& given = summary.guarantees;
  if (!given.acknowledged.empty()) lines.add("acknowledged", "when " + given.acknowledged);
  if (!given.durability.empty()) {
    lines.add("durability", survival_text(given.survival));
    for (const auto& because : given.durability) lines.because(because);
  }
  add_claim(lines, "delivery", given.delivery);
  add_claim(lines, "order", given.order);
  add_claim(lines, "atomicity", given.atomicity);
  add_claim(lines, "freshness", given.freshness);
  for (const auto& limit : given.limits)
    lines.add(&limit == given.limits.data() ? "limits" : "", limit.step + ": " + limit.why);
  return lines.take();
}

}  // namespace prism

#include "namespaces/composition.h"

#include <algorithm>
#include <array>
#include <optional>
#include <utility>

#include "config/suggestions.h"
#include "namespaces/guarantees.h"

namespace prism {
namespace {

using config::Diagnostic;
using config::Diagnostics;
using config::Node;
using config::Severity;

constexpr std::string_view kPubSub = "pub-sub";
constexpr std::string_view kEventLog = "event-log";

constexpr std::array kApis = {ClientApi::pubsub,   ClientApi::queue, ClientApi::transact, ClientApi::reader,
                              ClientApi::keyvalue, ClientApi::cache, ClientApi::events,   ClientApi::views};

// An enabled pattern of a namespace, where it stands in the file.
struct Member {
  const PatternInfo* info;
  const PatternSpec* spec;  // null: pub-sub, which is no entry of the model
};

std::vector<Member> members(const NamespaceSpec& ns, const Catalogue& catalogue) {
  std::vector<Member> out;
  for (const PatternSpec& spec : ns.patterns) {
    if (!spec.enabled) continue;
    if (const PatternInfo* info = catalogue.find(spec.type)) out.push_back({info, &spec});
  }
  if (const PatternInfo* info = catalogue.find(kPubSub); ns.pub_sub && info != nullptr) out.push_back({info, nullptr});
  return out;
}

std::string listed(const std::vector<std::string>& names, std::string_view last = " and ") {
  std::string out;
  for (std::size_t i = 0; i < names.size(); ++i) {
    if (i > 0) out += i + 1 == names.size() ? std::string(last) : std::string(", ");
    out += names[i];
  }
  return out;
}

std::string_view in_words(std::string_view capability) {
  if (capability == kEventLog) return "a log of messages";
  if (capability == "object-store") return "an object store";
  if (capability == "sql-database") return "an SQL database";
  if (capability == "key-value-store") return "a key-value store";
  if (capability == "search") return "a search index";
  return capability;
}

std::string in_words(const std::vector<std::string_view>& any_of) {
  std::vector<std::string> words;
  for (const std::string_view capability : any_of) words.emplace_back(in_words(capability));
  return listed(words, " or ");
}

bool has_one_of(const BackendType& type, const std::vector<std::string_view>& any_of) {
  return std::ranges::any_of(any_of, [&](std::string_view capability) {
    return std::ranges::find(type.capabilities, capability) != type.capabilities.end();
  });
}

// Values at a dotted path; see BackendNeed::option.
void collect(const Node& node, std::string_view path, std::vector<Node>& out) {
  if (node.broken()) return;
  if (node.is_scalar()) {
    if (path.find('.') != std::string_view::npos) return;  // a mistake, which is told elsewhere
    out.push_back(node);
    return;
  }
  if (path.empty()) return;
  const std::size_t dot = path.find('.');
  std::string_view name = path.substr(0, dot);
  const std::string_view rest = dot == std::string_view::npos ? std::string_view() : path.substr(dot + 1);
  const bool each = name.ends_with("[]");
  if (each) name.remove_suffix(2);
  const Node* next = node.find(name);
  if (next == nullptr) return;
  if (!each) {
    collect(*next, rest, out);
    return;
  }
  for (const Node& item : next->items()) {
    if (!item.is_scalar()) collect(item, rest, out);
  }
  for (const auto& entry : next->entries()) {
    if (!entry.value.is_scalar()) collect(entry.value, rest, out);
  }
}

bool carries_messages(ClientApi api) {
  return api == ClientApi::pubsub || api == ClientApi::queue || api == ClientApi::transact;
}

// What the namespace's own backend must be where no pattern says so.
std::vector<std::string_view> needed_by(ClientApi api) {
  switch (api) {
    case ClientApi::pubsub:
    case ClientApi::queue:
    case ClientApi::transact:
    case ClientApi::events:
      return {kEventLog};
    case ClientApi::reader:
    case ClientApi::views:
      return {"sql-database"};
    case ClientApi::keyvalue:
    case ClientApi::cache:
      return {"key-value-store", "sql-database"};
    case ClientApi::none:
      return {};
  }
  return {};
}

class Check {
 public:
  Check(const FileSpec& file, const NamespaceSpec& ns, const Components& components, const Catalogue& catalogue,
        Diagnostics& diagnostics)
      : file_(file),
        ns_(ns),
        components_(components),
        catalogue_(catalogue),
        diagnostics_(diagnostics),
        members_(members(ns, catalogue)) {}

  void run() {
    pairs();
    apis();
    order();
    backends();
    contradictions();
  }

 private:
  // each two patterns, in either order.
  void pairs() {
    for (std::size_t i = 0; i < members_.size(); ++i) {
      for (std::size_t j = i + 1; j < members_.size(); ++j) {
        const auto why = why_incompatible(*members_[i].info, *members_[j].info);
        if (!why) continue;
        refused_.insert(refused_.end(), {members_[i].info, members_[j].info});
        report(members_[j], "INCOMPATIBLE_PATTERN", *why, "give them namespaces of their own, or disable one",
               {{"pattern", std::string(members_[j].info->name)},
                {"conflicts_with", std::string(members_[i].info->name)}});
      }
    }
  }

  // L-15. Where the API is derived, patterns of a refused pair have been told already.
  void apis() {
    const ClientApi api = ns_.api();
    for (const Member& member : members_) {
      if (member.spec == nullptr || member.info->apis.empty()) continue;
      if (std::ranges::any_of(
              kApis, [&](ClientApi each) { return ns_.serves(each) && supports(*member.info, to_string(each)); }))
        continue;
      if (!ns_.client_api && std::ranges::find(refused_, member.info) != refused_.end()) continue;
      std::vector<std::string> good;
      for (const std::string_view each : member.info->apis) good.emplace_back(each);
      report(member, "INCOMPATIBLE_PATTERN",
             "the pattern " + std::string(member.info->name) + " does not work under client_api " +
                 std::string(to_string(api)) +
                 (ns_.client_api ? std::string() : ", which follows from the namespace's other patterns"),
             "use client_api " + listed(good, " or ") + ", or remove the pattern",
             {{"pattern", std::string(member.info->name)}, {"api", std::string(to_string(api))}});
    }
  }

  // L-16, R-36.
  void order() {
    for (std::size_t i = 0; i < members_.size(); ++i) {
      for (std::size_t j = i + 1; j < members_.size(); ++j) {
        const PatternInfo& first = *members_[i].info;
        const PatternInfo& second = *members_[j].info;
        if (!must_precede(second, first)) continue;
        const std::string fix = "put " + std::string(second.name) + " before " + std::string(first.name);
        report(members_[j], "INCOMPATIBLE_PATTERN_ORDER",
               std::string(first.name) + " stands before " + std::string(second.name) +
                   ", but works on what that hands on to it",
               fix, {{"first", std::string(first.name)}, {"second", std::string(second.name)}, {"fix", fix}});
      }
    }
  }

  // what one part of the chain asks for and another takes away.
  void contradictions() {
    const auto found = promise(file_, ns_, components_, catalogue_, false).contradiction;
    if (!found) return;
    const auto at = std::ranges::find_if(members_, [&](const Member& each) { return each.info->name == found->step; });
    if (at == members_.end()) return;
    report(*at, "CONTRADICTING_GUARANTEES",
           found->asked_by + " asks that reads see every acknowledged write (" + found->asked + "), but at " +
               found->step + " they no longer do: " + found->why,
           "leave out one of the two", {{"step", found->step}, {"asked_by", found->asked_by}});
  }

  // L-17.
  void backends() {
    bool own_refused = false;
    for (const UsedBackend& used : used_backends(ns_, catalogue_)) {
      const BackendType* type = backend_type(file_, components_, used.backend);
      if (type == nullptr) {
        // Of a pattern that is not built the backends may be so too.
        // What is wrong with an entry under `backends:` has been told there.
        const bool declared = file_.backend(used.backend) != nullptr;
        if (!declared && !used.by_default && !used.option.empty() && components_.pattern(used.pattern) != nullptr)
          unknown(used);
        continue;
      }
      if (has_one_of(*type, used.need->any_of)) continue;
      if (!used.option.empty()) {
        refuse(used.at.position(), used.at.path(), used.backend, *type, used.need->any_of, used.pattern, used.option);
      } else if (!std::exchange(own_refused, true)) {
        refuse(ns_.backend.position, {}, used.backend, *type, used.need->any_of, used.pattern, "backend");
      }
    }
    own_backend();
    if (ns_.state.empty()) return;
    const BackendType* type = backend_type(file_, components_, ns_.state);
    if (type == nullptr || has_one_of(*type, {"key-value-store"})) return;
    diagnostics_.error(ns_.position, {}, "BACKEND_LACKS_CAPABILITY",
                       "the state of namespace '" + ns_.name + "' cannot be kept in " + ns_.state + ", which is no " +
                           "key-value store",
                       "leave `state` out, or name another backend");
  }

  void own_backend() {
    const ClientApi api = ns_.api();
    const bool from_pattern = std::ranges::any_of(members_, [](const Member& member) {
      return std::ranges::any_of(member.info->backends, [](const BackendNeed& need) { return need.option.empty(); });
    });
    if (!ns_.backend.name.empty()) {
      const BackendType* type = backend_type(file_, components_, ns_.backend.name);
      const auto needed = needed_by(api);
      const bool elsewhere = carries_messages(api) && log_backend(ns_, catalogue_) != ns_.backend.name;
      if (type == nullptr || from_pattern || elsewhere || needed.empty() || has_one_of(*type, needed)) return;
      refuse(ns_.backend.position, {}, ns_.backend.name, *type, needed, {}, "backend");
      return;
    }
    if (!carries_messages(api) || !log_backend(ns_, catalogue_).empty()) return;
    const bool built = std::ranges::all_of(members_, [&](const Member& member) {
      return member.spec == nullptr || components_.pattern(member.info->name) != nullptr;
    });
    // A `backend` that could not be read has been told already.
    if (!built || (ns_.backend.position.line > 0 && diagnostics_.has_errors())) return;
    diagnostics_.error(ns_.backend.position.line > 0 ? ns_.backend.position : ns_.position, {}, "BACKEND_MISSING",
                       "namespace '" + ns_.name + "' names no backend for its messages",
                       "add `backend: kafka`, or a destination to the outbox's publisher");
  }

  void unknown(const UsedBackend& used) {
    std::vector<std::string> known;
    for (const BackendSpec& spec : file_.backends) known.push_back(spec.name);
    for (const BackendType& type : components_.backends) known.emplace_back(type.name);
    diagnostics_.error(used.at, "UNKNOWN_BACKEND",
                       "there is no backend " + used.at.display() + ": neither an entry under 'backends:' nor a type",
                       used.at.substituted() ? "" : config::suggest(used.backend, known));
  }

  void refuse(const config::SourcePosition& at, std::string path, const std::string& backend, const BackendType& type,
              const std::vector<std::string_view>& any_of, const std::string& pattern, const std::string& role) {
    std::vector<std::string> fitting;
    for (const BackendType& each : components_.backends) {
      if (has_one_of(each, any_of)) fitting.emplace_back(each.name);
    }
    const std::string who = pattern.empty() ? "client_api " + std::string(to_string(ns_.api())) : pattern;
    const std::string named = backend == type.name ? backend : backend + " (" + std::string(type.name) + ")";
    std::string needs;
    for (const std::string_view each : any_of) needs += (needs.empty() ? "" : ", ") + std::string(each);
    diagnostics_.add(
        {Severity::error,
         at,
         std::move(path),
         "BACKEND_INCOMPATIBLE_WITH_PATTERNS",
         named + " cannot be " + role + " of " + who + ", which needs " + in_words(any_of),
         fitting.empty() ? std::string() : "use " + listed(fitting, " or "),
         {{"backend", backend}, {"type", std::string(type.name)}, {"pattern", pattern}, {"needs", needs}}});
  }

  void report(const Member& member, std::string reason, std::string message, std::string hint,
              std::vector<std::pair<std::string, std::string>> details) {
    const auto& at = member.spec != nullptr ? member.spec->position : ns_.position;
    std::string path = member.spec != nullptr ? member.spec->options.path() : std::string();
    diagnostics_.add({Severity::error, at, std::move(path), std::move(reason), std::move(message), std::move(hint),
                      std::move(details)});
  }

  const FileSpec& file_;
  const NamespaceSpec& ns_;
  const Components& components_;
  const Catalogue& catalogue_;
  Diagnostics& diagnostics_;
  const std::vector<Member> members_;
  std::vector<const PatternInfo*> refused_;
};

}  // namespace

Composition compose(const NamespaceSpec& ns, const Catalogue& catalogue) {
  Composition out;
  std::vector<const PatternInfo*> steps;
  for (const Member& member : members(ns, catalogue)) {
    if (member.info->in_request) {
      steps.push_back(member.info);
    } else {
      out.beside.emplace_back(member.info->name);
    }
  }
  const auto in_file = steps;
  std::ranges::sort(steps, {}, [](const PatternInfo* info) { return info->rank; });
  for (const PatternInfo* info : steps) out.chain.emplace_back(info->name);
  if (steps != in_file) {
    std::vector<std::string> given;
    for (const PatternInfo* info : in_file) given.emplace_back(info->name);
    out.reordered = "the file says " + listed(given) + "; " + listed(out.chain) +
                    " is the order in which they always run, and either spelling means it";
  }
  return out;
}

std::vector<UsedBackend> used_backends(const NamespaceSpec& ns, const Catalogue& catalogue) {
  std::vector<UsedBackend> out;
  const std::string log = log_backend(ns, catalogue);
  for (const Member& member : members(ns, catalogue)) {
    for (const BackendNeed& need : member.info->backends) {
      UsedBackend used{.pattern = std::string(member.info->name),
                       .option = std::string(need.option),
                       .backend = {},
                       .at = member.spec != nullptr ? member.spec->options : Node(),
                       .by_default = false,
                       .need = &need};
      if (need.option.empty()) {
        used.backend = need.any_of.front() == kEventLog ? log : ns.backend.name;
        if (!used.backend.empty()) out.push_back(std::move(used));
        continue;
      }
      std::vector<Node> given;
      if (member.spec != nullptr) collect(member.spec->options, need.option, given);
      std::erase_if(given, [](const Node& node) { return node.text().empty(); });
      if (given.empty() && !need.standard.empty()) {
        used.backend = need.standard;
        used.by_default = true;
        out.push_back(used);
      }
      for (const Node& node : given) {
        used.at = node;
        used.backend = node.text();
        out.push_back(used);
      }
    }
  }
  return out;
}

std::string log_backend(const NamespaceSpec& ns, const Catalogue& catalogue) {
  for (const Member& member : members(ns, catalogue)) {
    if (member.spec == nullptr || !member.info->in_request) continue;
    for (const BackendNeed& need : member.info->backends) {
      if (need.option.empty() || !need.standard.empty() || need.any_of.front() != kEventLog) continue;
      std::vector<Node> given;
      collect(member.spec->options, need.option, given);
      if (!given.empty() && !given.front().text().empty()) return given.front().text();
    }
  }
  return ns.backend.name;
}

const BackendType* backend_type(const FileSpec& file, const Components& components, const std::string& name) {
  const BackendSpec* spec = file.backend(name);
  return components.backend(spec != nullptr ? std::string_view(spec->type) : std::string_view(name));
}

void check_composition(const FileSpec& file, const Components& components, Diagnostics& diagnostics) {
  const Catalogue catalogue(components);
  for (const NamespaceSpec& ns : file.namespaces) Check(file, ns, components, catalogue, diagnostics).run();
}

}  // namespace prism

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "cli/command.h"
#include "cli/output.h"
#include "cli/summary_json.h"
#include "config/redact.h"
#include "config/yaml_text.h"
#include "namespaces/parse.h"
#include "namespaces/planner.h"
#include "namespaces/secrets.h"
#include "namespaces/summary.h"

namespace prism::cli {
namespace {

using Json = nlohmann::ordered_json;

enum class Form : int { yaml, json };
struct Options {
  std::string file;
  Form form = Form::yaml;
};

// `derived` is the namespace without secrets.
Json plan_json(const Plan& plan, const config::Node& derived) {
  Json decisions = Json::array(), stores = Json::array();
  for (const auto& each : plan.decisions) {
    Json rejected = Json::array();
    for (const std::string& other : each.rejected) rejected.push_back(config::redacted_words(other));
    decisions.push_back({{"part", each.part},
                         {"chosen", config::redacted_words(each.chosen)},
                         {"requirement", each.requirement},
                         {"because", config::redacted_words(each.because)},
                         {"rejected", std::move(rejected)}});
  }
  const Estimate& estimate = plan.estimate;
  for (const auto& store : estimate.stores) {
    stores.push_back({{"backend", config::redacted_words(store.backend)},
                      {"what", store.what},
                      {"bytes", store.bytes > 0 ? Json(store.bytes) : Json()},
                      {"kept", store.kept},
                      {"writes_per_second", store.writes_per_second}});
  }
  Json drivers = Json::array();
  for (const std::string& driver : estimate.cost_drivers) drivers.push_back(config::redacted_words(driver));
  return {{"derived", Json::parse(config::format_json(derived))},
          {"decisions", std::move(decisions)},
          {"estimate",
           {{"messages_per_second", estimate.messages_per_second},
            {"message_bytes", estimate.message_bytes},
            {"upper_bound", estimate.upper_bound},
            {"partitions", estimate.partitions},
            {"stores", std::move(stores)},
            {"cost_drivers", std::move(drivers)}}}};
}

// The file with every namespace that has requirements in its derived form.
struct DerivedFile {
  config::Node root;                   // without secrets
  std::vector<std::string> variables;  // that stand for them
  std::map<std::string, std::string> comments;
  struct Namespace {
    std::string name;
    std::size_t index = 0;
    Plan plan;
  };
  std::vector<Namespace> plans;
};

std::optional<DerivedFile> derive(const config::Node& root, const ParsedFile& parsed) {
  DerivedFile out;
  std::vector<config::Node> namespaces;
  const config::Node* list = root.find("namespaces");
  if (list == nullptr) return std::nullopt;
  for (const config::Node& ns : list->items()) {
    if (ns.find("requirements") == nullptr) {
      namespaces.push_back(ns);
      continue;
    }
    config::Diagnostics told_before;
    auto plan = plan_namespace(ns, parsed.file.backends, components(), told_before);
    if (!plan) return std::nullopt;
    const std::string path = "namespaces[" + std::to_string(namespaces.size()) + "]";
    out.comments[path] = config::redacted_words(format_text(*plan));
    for (const auto& [below, reason] : plan->comments) {
      out.comments[path + "." + below] = config::redacted_words(reason);
    }
    const config::Node* name = ns.find("name");
    namespaces.push_back(plan->derived);
    out.plans.push_back({name != nullptr ? name->text() : std::string(), namespaces.size() - 1, std::move(*plan)});
  }
  std::vector<config::Entry> entries;
  for (const config::Entry& entry : root.entries()) {
    entries.push_back(entry);
    if (entry.key == "namespaces") entries.back().value = config::Node::make_list(namespaces, *list);
  }
  auto shown = without_secrets(config::Node::make_map(std::move(entries), root), components());
  out.root = std::move(shown.root);
  out.variables = std::move(shown.variables);
  for (auto& [path, text] : shown.comments) {
    std::string& comment = out.comments[path];
    comment += (comment.empty() ? "" : "\n") + text;
  }
  return out;
}

std::string yaml(const DerivedFile& derived, bool with_comments) {
  std::string out;
  if (!derived.variables.empty()) {
    out = "# Secrets of the file are not printed: this means the same where these variables hold them:\n";
    for (const std::string& name : derived.variables) out += "#   " + name + "\n";
  }
  return out +
         config::format_yaml(derived.root, with_comments ? derived.comments : std::map<std::string, std::string>());
}

Exit plan(const Options& options) {
  const auto parsed = parse_file(options.file, components());
  fmt::print(stderr, "{}", config::format_text(parsed.diagnostics));
  config::Diagnostics told_before;
  const auto root = config::load_file(options.file, {}, told_before);
  if (!root) return parsed.readable() ? Exit::failed : Exit::unusable;
  const auto derived = derive(*root, parsed);
  // Of a wrong file in which nothing is derived there is nothing more to say.
  if (!derived || (derived->plans.empty() && !parsed.ok())) return Exit::failed;
  if (derived->plans.empty()) {
    fmt::print(stderr, "{}: no namespace has requirements; the file stands as it is\n", options.file);
  }
  if (options.form == Form::yaml) {
    fmt::print("{}", yaml(*derived, true));
  } else {
    Json namespaces = Json::array();
    for (const auto& [name, index, plan] : derived->plans) {
      Json one = {{"name", name}};
      one.update(plan_json(plan, derived->root.find("namespaces")->items()[index]));
      if (const NamespaceSpec* spec = parsed.file.find(name); spec != nullptr && parsed.ok()) {
        one["summary"] = to_json(summarize(parsed.file, *spec, components(), false));
      }
      namespaces.push_back(std::move(one));
    }
    Json out = {{"file", options.file}, {"valid", parsed.ok()}};
    out.update(to_json(parsed.diagnostics));
    out["namespaces"] = std::move(namespaces);
    out["variables"] = derived->variables;
    out["yaml"] = yaml(*derived, false);
    fmt::print("{}\n", out.dump(2, ' ', false, nlohmann::json::error_handler_t::replace));
  }
  return parsed.ok() ? Exit::good : Exit::failed;
}

}  // namespace

void add_plan(CLI::App& root, Run& chosen) {
  static const std::map<std::string, Form> kForms{{"yaml", Form::yaml}, {"json", Form::json}};
  auto* command = root.add_subcommand(
      "plan", "Show the patterns, options and partitions that a file's requirements mean, why, and what they cost");
  auto options = std::make_shared<Options>();
  command->add_option("FILE", options->file, "The configuration, YAML")->required()->type_name("");
  command
      ->add_option("--format", options->form,
                   "How to print: yaml, the file with the requirements resolved and the reasons as comments; json, "
                   "with every decision and the estimate")
      ->transform(one_of(kForms))
      ->type_name("yaml|json")
      ->default_str("yaml");
  command->footer(
      "What is printed is a configuration file of its own and means the same. Secrets that are written in the file "
      "are\n"
      "not printed: variables stand for them.\n\n"
      "Exit codes: 0 planned; 1 the file has errors, or needs what this version does not have (the plan is printed "
      "all\n"
      "the same where there is one); 2 it cannot be read.");
  command->callback([&chosen, options] { chosen = [options] { return plan(*options); }; });
}

}  // namespace prism::cli

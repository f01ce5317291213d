#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "cli/command.h"
#include "cli/output.h"
#include "cli/summary_json.h"
#include "config/yaml_text.h"
#include "namespaces/parse.h"
#include "namespaces/planner.h"
#include "namespaces/summary.h"

namespace prism::cli {
namespace {

using Json = nlohmann::ordered_json;

enum class Form : int { yaml, json };
struct Options {
  std::string file;
  Form form = Form::yaml;
};

Json plan_json(const Plan& plan) {
  Json decisions = Json::array(), stores = Json::array();
  for (const auto& each : plan.decisions) {
    decisions.push_back({{"part", each.part},
                         {"chosen", each.chosen},
                         {"requirement", each.requirement},
                         {"because", each.because},
                         {"rejected", each.rejected}});
  }
  const Estimate& estimate = plan.estimate;
  for (const auto& store : estimate.stores) {
    stores.push_back({{"backend", store.backend},
                      {"what", store.what},
                      {"bytes", store.bytes},
                      {"writes_per_second", store.writes_per_second}});
  }
  return {{"derived", Json::parse(config::format_json(plan.derived))},
          {"decisions", std::move(decisions)},
          {"estimate",
           {{"messages_per_second", estimate.messages_per_second},
            {"message_bytes", estimate.message_bytes},
            {"upper_bound", estimate.upper_bound},
            {"partitions", estimate.partitions},
            {"stores", std::move(stores)},
            {"cost_drivers", estimate.cost_drivers}}}};
}

// The file with every namespace that has requirements in its derived form.
struct DerivedFile {
  config::Node root;
  std::map<std::string, std::string> comments;
  std::vector<std::pair<std::string, Plan>> plans;  // by the name of the namespace
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
    out.comments[path] = format_text(*plan);
    for (const auto& [below, reason] : plan->comments) out.comments[path + "." + below] = reason;
    namespaces.push_back(plan->derived);
    const config::Node* name = ns.find("name");
    out.plans.emplace_back(name != nullptr ? name->text() : std::string(), std::move(*plan));
  }
  std::vector<config::Entry> entries;
  for (const config::Entry& entry : root.entries()) {
    entries.push_back(entry);
    if (entry.key == "namespaces") entries.back().value = config::Node::make_list(namespaces, *list);
  }
  out.root = config::Node::make_map(std::move(entries), root);
  return out;
}

Exit plan(const Options& options) {
  const auto parsed = parse_file(options.file, components());
  fmt::print(stderr, "{}", config::format_text(parsed.diagnostics));
  config::Diagnostics told_before;
  const auto root = config::load_file(options.file, {}, told_before);
  if (!root) return parsed.readable() ? Exit::failed : Exit::unusable;
  const auto derived = derive(*root, parsed);
  if (!derived) return Exit::failed;
  if (derived->plans.empty()) {
    fmt::print(stderr, "{}: no namespace has requirements; the file stands as it is\n", options.file);
  }
  if (options.form == Form::yaml) {
    fmt::print("{}", config::format_yaml(derived->root, derived->comments));
  } else {
    Json namespaces = Json::array();
    for (const auto& [name, plan] : derived->plans) {
      Json one = {{"name", name}};
      one.update(plan_json(plan));
      if (const NamespaceSpec* spec = parsed.file.find(name); spec != nullptr && parsed.ok()) {
        one["summary"] = to_json(summarize(parsed.file, *spec, components(), false));
      }
      namespaces.push_back(std::move(one));
    }
    const Json out = {{"file", options.file},
                      {"valid", parsed.ok()},
                      {"diagnostics", Json::parse(config::format_json(parsed.diagnostics))},
                      {"namespaces", std::move(namespaces)},
                      {"yaml", config::format_yaml(derived->root)}};
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
      ->transform(CLI::CheckedTransformer(kForms, CLI::ignore_case).description(""))
      ->type_name("yaml|json")
      ->default_str("yaml");
  command->footer(
      "What is printed is a configuration file of its own and means the same.\n\n"
      "Exit codes: 0 planned; 1 the file has errors, or needs what this version does not have (the plan is printed "
      "all\n"
      "the same where there is one); 2 it cannot be read.");
  command->callback([&chosen, options] { chosen = [options] { return plan(*options); }; });
}

}  // namespace prism::cli

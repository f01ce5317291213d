#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "base/text.h"
#include "cli/command.h"
#include "cli/output.h"
#include "cli/summary_json.h"
#include "namespaces/parse.h"
#include "namespaces/summary.h"

namespace prism::cli {
namespace {

struct Options {
  std::string file;
  Format format = Format::text;
  bool embedded = false;
};

void print_json(const Options& options, const ParsedFile& parsed) {
  nlohmann::ordered_json namespaces = nlohmann::ordered_json::array();
  if (parsed.ok()) {
    for (const auto& ns : parsed.file.namespaces) {
      namespaces.push_back(to_json(summarize(parsed.file, ns, components(), options.embedded)));
    }
  }
  nlohmann::ordered_json out = {{"file", options.file}, {"valid", parsed.ok()}, {"embedded", options.embedded}};
  out.update(to_json(parsed.diagnostics));
  out["namespaces"] = std::move(namespaces);
  fmt::print("{}\n", out.dump(2, ' ', false, nlohmann::json::error_handler_t::replace));
}

void print_text(const Options& options, const ParsedFile& parsed) {
  const auto& found = parsed.diagnostics;
  fmt::print(stderr, "{}", config::format_text(found));
  if (!parsed.ok()) {
    fmt::print(stderr, "{}: {}\n", options.file, counted(found.error_count(), "error"));
    return;
  }
  const std::size_t warnings = found.items().size();
  fmt::print("{}: good, {}{}\n", options.file, counted(parsed.file.namespaces.size(), "namespace"),
             warnings == 0 ? "" : ", " + counted(warnings, "warning"));
  for (const auto& ns : parsed.file.namespaces) {
    fmt::print("\n{}\n{}", ns.name, format_text(summarize(parsed.file, ns, components(), options.embedded)));
  }
}

Exit validate(const Options& options) {
  const auto parsed = parse_file(options.file, components());
  options.format == Format::json ? print_json(options, parsed) : print_text(options, parsed);
  if (parsed.ok()) return Exit::good;
  return parsed.readable() ? Exit::failed : Exit::unusable;
}

}  // namespace

void add_validate(CLI::App& root, Run& chosen) {
  auto* command = root.add_subcommand("validate",
                                      "Check a configuration file, all its mistakes at once, and show what it means: "
                                      "chains, jobs, backends and guarantees with their reasons");
  auto options = std::make_shared<Options>();
  command->add_option("FILE", options->file, "The configuration, YAML")->required()->type_name("");
  command->add_flag("--embedded", options->embedded,
                    "Say what holds when every backend is bound to its embedded twin, as under `prism dev`");
  add_format(*command, options->format);
  command->footer("Exit codes: 0 good (warnings allowed); 1 the file has errors; 2 it cannot be read.");
  command->callback([&chosen, options] { chosen = [options] { return validate(*options); }; });
}

}  // namespace prism::cli

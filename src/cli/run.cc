#include <cstdio>

#include "cli/command.h"
#include "cli/output.h"

namespace prism::cli {

CLI::Option* add_format(CLI::App& command, Format& format) {
  static const std::map<std::string, Format> kNames{{"text", Format::text}, {"json", Format::json}};
  return command.add_option("--format", format, "How to print: text for people, json for programs")
      ->transform(one_of(kNames))
      ->type_name("text|json")
      ->default_str("text");
}

int run(int argc, char** argv) {
  CLI::App app(
      "Prism: one endpoint for messages and data. Applications say what; a YAML file says how (patterns) and where "
      "(backends).",
      "prism");
  app.require_subcommand(1);
  app.get_formatter()->column_width(34);
  app.footer(
      "Examples:\n"
      "  prism dev examples/quickstart.yaml           serve a file with embedded backends, nothing installed\n"
      "  prism publish orders 'hello'                 publish a text\n"
      "  prism publish media --file video.mp4         publish a file of any size\n"
      "  prism subscribe media --group archive        receive what is published\n"
      "\n"
      "Exit codes: 0 done; 1 refused, invalid or failed; 2 the command line or a file cannot be used;\n"
      "3 no server answers; 4 the time given was over; 5 a dry run that would change something.\n"
      "Each command has its own help: prism COMMAND --help");
  Run chosen;
  add_dev(app, chosen);
  add_serve(app, chosen);
  add_validate(app, chosen);
  add_check(app, chosen);
  add_plan(app, chosen);
  add_explain(app, chosen);
  add_schema(app, chosen);
  add_top(app, chosen);
  add_profile(app, chosen);
  add_apply(app, chosen);
  add_publish(app, chosen);
  add_subscribe(app, chosen);
  add_version(app, chosen);
  add_completions(app, chosen);
  app.set_version_flag("--version", std::string("prism ") + PRISM_VERSION, "Print the version");
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& problem) {
    return app.exit(problem) == 0 ? 0 : static_cast<int>(Exit::unusable);
  }
  const Exit code = chosen();
  std::fflush(stdout);
  return static_cast<int>(code);
}

}  // namespace prism::cli

#include <fmt/format.h>
#include <unistd.h>

#include <cstdlib>
#include <iostream>
#include <iterator>
#include <nlohmann/json.hpp>

#include "admin/client.h"
#include "admin/token.h"
#include "cli/command.h"
#include "cli/output.h"
#include "config/diagnostics.h"
#include "config/document.h"

namespace prism::cli {
namespace {

using nlohmann::json;

constexpr std::chrono::seconds kLookPatience{10};
constexpr std::chrono::seconds kPatience{120};  // a replacement waits for backends to answer

struct Options {
  std::string file;
  std::string admin = "127.0.0.1:8981";
  bool dry_run = false;
  std::vector<std::string> abandon;
  Format format = Format::text;
};

std::string text(const json& object, const char* key) {
  const auto it = object.find(key);
  return it != object.end() && it->is_string() ? it->get<std::string>() : std::string();
}

Error error_of(const json& answer) {
  const json& error = answer.contains("error") ? answer["error"] : answer;
  return {Code::failed_precondition,
          text(error, "reason"),
          text(error, "message"),
          text(error, "hint"),
          Retry::never,
          {},
          {}};
}

std::string percent_encoded(std::string_view name) {
  std::string out;
  for (const char c : name) {
    const auto byte = static_cast<unsigned char>(c);
    if (std::isalnum(byte) != 0 || c == '-' || c == '_' || c == '.') {
      out += c;
    } else {
      out += fmt::format("%{:02X}", byte);
    }
  }
  return out;
}

// The server says where its secret is; who may read it may change the configuration.
Result<config::Secret> find_token(const json& status) {
  if (const char* given = std::getenv("PRISM_ADMIN_TOKEN")) return config::Secret(given);
  return admin::read_token(text(status, "token_file"));
}

Result<json> parse(const admin::Response& response, const std::string& address) {
  json parsed = json::parse(response.body, nullptr, false);
  if (!parsed.is_object()) {
    return fail(Code::internal, "ANSWER_MALFORMED", "what answers at " + address + " is no admin address of Prism",
                "give the address that the server prints as \"admin\"");
  }
  return parsed;
}

void print_changes(const json& answer) {
  for (const auto& part : answer.value("changes", json::array())) {
    const std::string change = text(part, "change");
    const std::string name = text(part, "name");
    fmt::print("{} {}{}{}\n",
               change == "added"     ? "+"
               : change == "removed" ? "-"
                                     : "~",
               text(part, "part"), name.empty() ? "" : " " + name,
               part.value("needs_restart", false) ? "  (takes effect when the server is started again)" : "");
    for (const auto& option : part.value("options", json::array())) {
      const std::string before = text(option, "before");
      const std::string after = text(option, "after");
      if (before.empty()) {
        fmt::print("    + {}: {}\n", text(option, "option"), after);
      } else if (after.empty()) {
        fmt::print("    - {}: {}\n", text(option, "option"), before);
      } else {
        fmt::print("    ~ {}: {} -> {}\n", text(option, "option"), before, after);
      }
    }
  }
}

void print_diagnostics(const json& answer) {
  for (const auto& d : answer.value("diagnostics", json::array())) {
    const int line = d.value("line", 0);  // 0: of no place in particular
    const std::string at = line > 0 ? fmt::format("{}:{}:{}: ", text(d, "file"), line, d.value("column", 0)) : "";
    fmt::print(stderr, "{}{}: {} [{}]\n", at, text(d, "severity"), text(d, "message"), text(d, "reason"));
    if (const auto hint = text(d, "hint"); !hint.empty()) fmt::print(stderr, "  hint: {}\n", hint);
  }
}

Exit refuse(const Error& error, Format format) {
  print_error(error, format);
  if (error.reason == "NOT_REACHABLE") return Exit::unreachable;
  return error.reason == "FILE_UNREADABLE" || error.reason == "UNREADABLE_FILE" ? Exit::unusable : Exit::failed;
}

Exit apply(const Options& options) {
  std::string body;
  if (options.file == "-") {
    body.assign(std::istreambuf_iterator<char>(std::cin), {});
  } else {
    config::Diagnostics problems;
    auto read = config::read_file(options.file, config::LoadOptions().max_bytes, problems);
    if (!read) return refuse(problems.to_error(), options.format);
    body = std::move(*read);
  }
  auto looked = admin::get(options.admin, "/v1/config", kLookPatience);
  if (!looked) return refuse(looked.error(), options.format);
  auto status = parse(*looked, options.admin);
  if (!status) return refuse(status.error(), options.format);
  if (looked->status != 200) return refuse(error_of(*status), options.format);
  auto token = find_token(*status);
  if (!token) return refuse(token.error(), options.format);

  std::string path = options.dry_run ? "/v1/config?dry_run=1" : "/v1/config?dry_run=0";
  path += "&file=" + percent_encoded(options.file == "-" ? "<stdin>" : options.file);
  for (const auto& name : options.abandon) path += "&abandon=" + percent_encoded(name);
  auto asked = admin::post(options.admin, path, body, "application/yaml", *token, kPatience);
  if (!asked) return refuse(asked.error(), options.format);
  auto answer = parse(*asked, options.admin);
  if (!answer) return refuse(answer.error(), options.format);
  if (auto& error = (*answer)["error"]; asked->status == 401 && error.is_object()) {
    error["hint"] = std::getenv("PRISM_ADMIN_TOKEN") != nullptr
                        ? "PRISM_ADMIN_TOKEN holds another one: put into it what stands in " +
                              text(*status, "token_file") +
                              " of the server, or leave it unset where that file can be read"
                        : text(*status, "token_file") + " is not that of the server at " + options.admin +
                              ": give its token in PRISM_ADMIN_TOKEN";
  } else if (error.is_null()) {
    answer->erase("error");
  }

  const std::string result = text(*answer, "result");
  const bool good = asked->status == 200;
  if (options.format == Format::json) {
    fmt::print("{}\n", answer->dump(2, ' ', false, json::error_handler_t::replace));
  } else {
    print_diagnostics(*answer);
    print_changes(*answer);
    for (const auto& left : answer->value("abandoned", json::array()))
      fmt::print("abandoned: namespace {} had {}\n", text(left, "namespace"), text(left, "what"));
    for (const auto& left : answer->value("in_the_way", json::array()))
      fmt::print("in the way now: namespace {} has {}\n", text(left, "namespace"), text(left, "what"));
    const auto generation = answer->value("generation", std::uint64_t{0});
    if (!good) {
      // What is wrong with the text stands above, with its places.
      if (result != "invalid") print_error(error_of(*answer));
      if (result.empty()) {  // it was not let in
        fmt::print(stderr, "nothing was changed\n");
      } else {
        fmt::print(stderr, "nothing was changed: generation {} is still served\n", generation);
      }
    } else if (result == "would_replace") {
      fmt::print("dry run: generation {} is still served\n", generation);
    } else if (result == "unchanged") {
      fmt::print("nothing to do: generation {} says the same\n", generation);
    } else {
      fmt::print("applied: generation {} is served, and written to {}\n", generation, text(*status, "file"));
    }
  }
  if (!good) return Exit::failed;
  return result == "would_replace" ? Exit::differs : Exit::good;
}

}  // namespace

void add_apply(CLI::App& root, Run& chosen) {
  auto* command = root.add_subcommand("apply", "Give a running server another configuration, without a restart");
  auto options = std::make_shared<Options>();
  command->add_option("FILE", options->file, "The configuration, YAML; - reads standard input")
      ->required()
      ->type_name("");
  command->add_flag("--dry-run", options->dry_run, "Show what it would change, and change nothing");
  command->add_option("--admin,--server", options->admin, "Where the admin server is; also from PRISM_ADMIN")
      ->envname("PRISM_ADMIN")
      ->type_name("HOST:PORT")
      ->default_str(options->admin);
  command
      ->add_option("--abandon", options->abandon,
                   "Give up what this namespace still has to do (rows that are not published, messages that are not "
                   "consumed, stored payloads) where the change takes their place away; may be repeated")
      ->type_name("NAMESPACE");
  add_format(*command, options->format);
  command->footer(
      "The server checks the text, builds what is new or changed beside what it serves, and swaps both between two\n"
      "requests. Then the text is in the server's own file, so that the next start serves it too. A change that would\n"
      "leave work behind waits for it a few seconds, then is refused.\n\n"
      "Examples:\n  prism apply prism.yaml --dry-run\n  prism apply prism.yaml\n"
      "  prism apply prism.yaml --abandon old-events\n\n"
      "Exit codes: 0 applied, or nothing to do; 1 invalid or refused, nothing was changed; 2 the file or the admin\n"
      "token cannot be read; 3 no admin server answers; 5 a dry run that would change something.");
  command->callback([&chosen, options] { chosen = [options] { return apply(*options); }; });
}

}  // namespace prism::cli

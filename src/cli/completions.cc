// Shell completions, made from the parser itself, so that they cannot lag behind it.
#include <fmt/format.h>

#include <algorithm>
#include <string>
#include <vector>

#include "cli/command.h"
#include "cli/reasons.h"
#include "cli/topics.h"
#include "namespaces/reference.h"
#include "patterns/components.h"

namespace prism::cli {
namespace {

struct Flag {
  std::string name;  // "--format"
  std::string help;
  bool takes_value = false;
  std::string values;  // "text json", if it is one of these
};
struct Entry {
  std::string name, help;
  std::vector<Flag> flags;
  std::string words;  // of the command's argument; empty: a file
};

// "text|json": "text json".
std::string alternatives(std::string names) {
  if (names.find('|') == std::string::npos) return {};
  std::ranges::replace(names, '|', ' ');
  return names;
}

// What `prism explain` may be asked, and what the others take that are not files.
std::string argument_words(const std::string& command) {
  if (command == "completions") return "bash zsh fish";
  if (command != "explain") return {};
  std::string out;
  for (const std::string& name : Reference(components()).known_names()) out += (out.empty() ? "" : " ") + name;
  for (const Reason& reason : reasons()) out += " " + reason.name;
  for (const Topic& topic : topics()) out += " " + std::string(topic.name);
  return out;
}

std::vector<Entry> entries(const CLI::App& root) {
  std::vector<Entry> out;
  for (const CLI::App* command : root.get_subcommands([](const CLI::App*) { return true; })) {
    Entry entry{command->get_name(), command->get_description(), {}, argument_words(command->get_name())};
    for (const CLI::Option* option : command->get_options()) {
      for (const auto& name : option->get_lnames()) {
        entry.flags.push_back({"--" + name, option->get_description(), option->get_items_expected_max() > 0,
                               alternatives(option->get_type_name())});
      }
    }
    out.push_back(std::move(entry));
  }
  return out;
}

std::string words(const std::vector<Flag>& flags) {
  std::string out;
  for (const auto& flag : flags) out += (out.empty() ? "" : " ") + flag.name;
  return out;
}

// Inside single quotes.
std::string quoted(std::string text) {
  std::string out;
  for (const char c : text) c == '\'' ? out += "'\\''" : out += c;
  return out;
}
// Inside zsh's '--flag[...]' specifications.
std::string bracketed(const std::string& text) {
  std::string out;
  for (const char c : quoted(text)) {
    if (c == '[' || c == ']' || c == ':') out += '\\';
    out += c;
  }
  return out;
}

std::string bash(const std::vector<Entry>& commands) {
  std::string names, cases;
  for (const auto& c : commands) {
    names += (names.empty() ? "" : " ") + c.name;
    std::string values;
    for (const auto& flag : c.flags) {
      if (!flag.values.empty()) values += fmt::format(" {}) values='{}' ;;", flag.name, flag.values);
    }
    cases += fmt::format("    {}) flags='{}' words='{}'", c.name, words(c.flags), c.words);
    cases += values.empty() ? " ;;\n" : "\n      case $before in" + values + " esac ;;\n";
  }
  return fmt::format(R"(# bash completion of prism; load it with: source <(prism completions bash)
_prism() {{
  local word=${{COMP_WORDS[COMP_CWORD]}} before=${{COMP_WORDS[COMP_CWORD-1]}} flags= words= values=
  COMPREPLY=()
  if [ "$COMP_CWORD" -eq 1 ]; then
    COMPREPLY=($(compgen -W '{0} --help --version' -- "$word"))
    return
  fi
  case ${{COMP_WORDS[1]}} in
{1}  esac
  if [[ $values ]]; then
    COMPREPLY=($(compgen -W "$values" -- "$word"))
  elif [[ $word == -* ]]; then
    COMPREPLY=($(compgen -W "$flags" -- "$word"))
  elif [[ $words ]]; then
    COMPREPLY=($(compgen -W "$words" -- "$word"))
  else
    COMPREPLY=($(compgen -f -- "$word"))
  fi
}}
complete -o filenames -F _prism prism
)",
                     names, cases);
}

std::string zsh(const std::vector<Entry>& commands) {
  std::string names, cases;
  for (const auto& c : commands) {
    names += fmt::format("    '{}:{}'\n", c.name, bracketed(c.help));
    cases += fmt::format("    {}) _arguments", c.name);
    for (const auto& flag : c.flags) {
      cases += fmt::format(" \\\n      '{}[{}]{}'", flag.name, bracketed(flag.help),
                           !flag.values.empty() ? ":value:(" + flag.values + ")"
                           : flag.takes_value   ? ":value:_files"
                                                : "");
    }
    cases += fmt::format(" \\\n      '*:{}' ;;\n", c.words.empty() ? "file:_files" : "word:(" + c.words + ")");
  }
  return fmt::format(R"(#compdef prism
# zsh completion of prism; save it as _prism in a folder of $fpath
_prism() {{
  local -a commands
  commands=(
{0}  )
  if (( CURRENT == 2 )); then
    _describe 'command' commands
    return
  fi
  local command=$words[2]
  shift words
  (( CURRENT-- ))
  case $command in
{1}  esac
}}
_prism "$@"
)",
                     names, cases);
}

std::string fish(const std::vector<Entry>& commands) {
  std::string out = "# fish completion of prism; save it as ~/.config/fish/completions/prism.fish\n";
  for (const auto& c : commands) {
    out += fmt::format("complete -c prism -n __fish_use_subcommand -f -a {} -d '{}'\n", c.name, quoted(c.help));
    for (const auto& flag : c.flags) {
      out += fmt::format("complete -c prism -n '__fish_seen_subcommand_from {}' -l {}{} -d '{}'\n", c.name,
                         flag.name.substr(2),
                         !flag.values.empty() ? " -x -a '" + flag.values + "'"
                         : flag.takes_value   ? " -r"
                                              : "",
                         quoted(flag.help));
    }
    if (!c.words.empty()) {
      out += fmt::format("complete -c prism -n '__fish_seen_subcommand_from {}' -f -a '{}'\n", c.name, c.words);
    }
  }
  return out;
}

}  // namespace

void add_completions(CLI::App& root, Run& chosen) {
  auto* command = root.add_subcommand("completions", "Print a completion script for a shell");
  auto shell = std::make_shared<std::string>();
  command->add_option("SHELL", *shell, "bash, zsh or fish")
      ->required()
      ->type_name("")
      ->check(CLI::IsMember({"bash", "zsh", "fish"}).description(""));
  command->footer(
      "Examples:\n  source <(prism completions bash)\n  prism completions zsh > ~/.zfunc/_prism\n"
      "  prism completions fish > ~/.config/fish/completions/prism.fish");
  command->callback([&root, &chosen, shell] {
    chosen = [&root, shell] {
      const auto all = entries(root);
      fmt::print("{}", *shell == "bash" ? bash(all) : *shell == "zsh" ? zsh(all) : fish(all));
      return Exit::good;
    };
  });
}

}  // namespace prism::cli

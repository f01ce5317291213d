// The reasons of errors as docs/reference/errors.md lists them: the page is part of the program.
#pragma once

#include <string>
#include <vector>

namespace prism::cli {

struct Reason {
  std::string name;     // "UNKNOWN_OPTION"
  std::string codes;    // status codes that it comes with, as listed: "ABORTED, FAILED_PRECONDITION"
  std::string meaning;  // Markdown
  std::string mend;     // what to do; Markdown
  std::string group;    // the page's section: "Configuration files"
};

const std::vector<Reason>& reasons();

}  // namespace prism::cli

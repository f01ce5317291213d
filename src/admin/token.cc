#include "admin/token.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>

#include "base/ids.h"

namespace prism::admin {

Result<config::Secret> read_token(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  std::string text;
  if (!in || !std::getline(in, text) || text.empty()) {
    return fail(Code::permission_denied, "FILE_UNREADABLE",
                "cannot read the admin token " + path + ": " + std::string(std::strerror(errno)),
                "run as the user that the server runs as, or give the token in PRISM_ADMIN_TOKEN");
  }
  return config::Secret(std::move(text));
}

Result<Token> open_token(const std::string& data_dir) {
  std::error_code problem;
  const auto folder = std::filesystem::absolute(data_dir, problem);
  const std::string path = (folder / "admin.token").string();
  if (::access(path.c_str(), F_OK) != 0) {
    const std::string partial = path + "." + std::to_string(::getpid());
    const int file = ::open(partial.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    const std::string text = to_hex(random_id()) + to_hex(random_id()) + "\n";
    const bool good = file >= 0 && ::write(file, text.data(), text.size()) == static_cast<ssize_t>(text.size());
    const int code = errno;
    if (file >= 0) ::close(file);
    if (good) ::link(partial.c_str(), path.c_str());  // another process of the same folder may be first
    ::unlink(partial.c_str());
    if (!good)
      return fail(Code::failed_precondition, "FILE_UNWRITABLE",
                  "cannot write the admin token " + path + ": " + std::strerror(code));
  }
  PRISM_TRY(auto value, read_token(path));
  return Token{path, std::move(value)};
}

}  // namespace prism::admin

#include "admin/config_routes.h"

#include <httplib.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <mutex>
#include <nlohmann/json.hpp>
#include <shared_mutex>

#include "admin/answers.h"
#include "base/text.h"

namespace prism::admin {
namespace {

using nlohmann::json;

json seconds(WallTime time) { return static_cast<double>(time.time_since_epoch().count()) / 1e6; }

json left_json(const std::vector<Unfinished>& left) {
  json out = json::array();
  for (const auto& one : left) out.push_back({{"namespace", one.name}, {"count", one.count}, {"what", one.what}});
  return out;
}

json reload_json(const Reload& reload) {
  json changes = json::array();
  for (const auto& part : reload.changes) {
    json options = json::array();
    for (const auto& option : part.options) {
      json one = {{"option", option.option}};
      if (!option.before.empty()) one["before"] = option.before;
      if (!option.after.empty()) one["after"] = option.after;
      options.push_back(std::move(one));
    }
    changes.push_back({{"part", to_string(part.part)},
                       {"name", part.name},
                       {"change", to_string(part.kind)},
                       {"needs_restart", part.needs_restart()},
                       {"options", std::move(options)}});
  }
  json diagnostics = json::array();
  for (const auto& d : reload.diagnostics) {
    diagnostics.push_back({{"severity", config::to_string(d.severity)},
                           {"file", d.position.file()},
                           {"line", d.position.line},
                           {"column", d.position.column},
                           {"path", d.path},
                           {"reason", d.reason},
                           {"message", d.message},
                           {"hint", d.hint}});
  }
  json out = {{"result", to_string(reload.result)},
              {"source", to_string(reload.source)},
              {"at", seconds(reload.at)},
              {"generation", reload.generation},
              {"changes", std::move(changes)},
              {"in_the_way", left_json(reload.in_the_way)},
              {"abandoned", left_json(reload.abandoned)},
              {"diagnostics", std::move(diagnostics)}};
  if (reload.error) out["error"] = error_json(*reload.error);
  return out;
}

int status_of(const Reload& reload) {
  if (reload.good()) return 200;
  if (reload.result == ReloadResult::invalid) return 400;
  if (reload.error->code == Code::unavailable) return 503;
  return reload.result == ReloadResult::refused ? 409 : 500;
}

// Takes as long for a wrong token as for a right one.
bool same(std::string_view a, std::string_view b) {
  unsigned different = a.size() == b.size() ? 0 : 1;
  for (std::size_t i = 0; i < std::min(a.size(), b.size()); ++i)
    different |= static_cast<unsigned char>(a[i]) ^ static_cast<unsigned char>(b[i]);
  return different == 0;
}

}  // namespace

struct ConfigRoutes::Impl {
  mutable std::shared_mutex mutex;  // held shared while a request uses the file
  LiveFile* file = nullptr;
  Token token;

  // Answers where it may not. The lock is held.
  bool may_change(const httplib::Request& request, httplib::Response& response) const {
    if (file == nullptr) {
      answer(response,
             Error{Code::unavailable, "NOT_SERVING", "the server is not serving", "try again", Retry::safe, {}, {}});
      return false;
    }
    const std::string given = request.get_header_value("Authorization");
    if (same(given, "Bearer " + token.value.reveal())) return true;
    const std::string hint = "send the header Authorization: Bearer TOKEN with what stands in " + token.path;
    answer(response, given.empty() ? Error{Code::unauthenticated,
                                           "TOKEN_MISSING",
                                           "whoever changes something here must show the server's admin token",
                                           hint,
                                           Retry::never,
                                           {},
                                           {}}
                                   : Error{Code::unauthenticated,
                                           "TOKEN_WRONG",
                                           "the token that was given is not this server's admin token",
                                           hint,
                                           Retry::never,
                                           {},
                                           {}});
    return false;
  }
  template <class Handler>
  auto with_file(bool changes, Handler handler) {
    return [this, changes, handler](const httplib::Request& request, httplib::Response& response) {
      const std::shared_lock lock(mutex);
      if (file == nullptr) {
        return answer(
            response,
            Error{Code::unavailable, "NOT_SERVING", "the server is not serving", "try again", Retry::safe, {}, {}});
      }
      if (!changes || may_change(request, response)) handler(request, response);
    };
  }
};

ConfigRoutes::ConfigRoutes() : impl_(std::make_unique<Impl>()) {}
ConfigRoutes::~ConfigRoutes() = default;

void ConfigRoutes::add_to(httplib::Server& http) {
  Impl* const self = impl_.get();
  http.Get("/v1/config", self->with_file(false, [self](const httplib::Request&, httplib::Response& response) {
    const auto status = self->file->status();
    answer(response,
           {{"file", std::filesystem::absolute(self->file->path()).string()},
            {"generation", status.generation},
            {"since", seconds(status.since)},
            {"source", to_string(status.source)},
            {"crc32c", status.crc32c},
            {"token_file", self->token.path},
            {"last", reload_json(status.last)}},
           200);
  }));
  http.Post("/v1/config", self->with_file(true, [self](const httplib::Request& request, httplib::Response& response) {
    if (!request.has_header("Content-Length")) {
      return answer(response,
                    Error{Code::invalid_argument,
                          "LENGTH_REQUIRED",
                          "the request has no body: the configuration is missing",
                          "send the configuration, with the header Content-Length",
                          Retry::never,
                          {},
                          {}},
                    411);
    }
    LiveFile::Apply apply;
    apply.text = request.body;
    if (request.has_param("file")) apply.name = shown(request.get_param_value("file"));
    apply.dry_run = request.get_param_value("dry_run") == "1";
    const auto [first, last] = request.params.equal_range("abandon");
    for (auto it = first; it != last; ++it) apply.abandon.insert(it->second);
    const auto done = self->file->apply(std::move(apply));
    answer(response, reload_json(done), status_of(done));
  }));
  http.Post("/v1/config/reload", self->with_file(true, [self](const httplib::Request&, httplib::Response& response) {
    const auto done = self->file->reload(ReloadSource::admin);
    answer(response, reload_json(done), status_of(done));
  }));
}

bool ConfigRoutes::may_change(const httplib::Request& request, httplib::Response& response) const {
  const std::shared_lock lock(impl_->mutex);
  return impl_->may_change(request, response);
}

void ConfigRoutes::attach(LiveFile& file, Token token) {
  const std::unique_lock lock(impl_->mutex);
  impl_->file = &file;
  impl_->token = std::move(token);
}

void ConfigRoutes::detach() {
  const std::unique_lock lock(impl_->mutex);
  impl_->file = nullptr;
}

}  // namespace prism::admin

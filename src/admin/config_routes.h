// The part of the admin server that shows and changes the configuration:
//
//   GET  /v1/config                     generation, when and by whom it was taken up, the last try with its result
//   POST /v1/config?dry_run=1&abandon=N&file=F
//                                       the body, YAML, becomes the server's file and is served; or what it would
//                                       change; messages about it name F
//   POST /v1/config/reload              the server reads its file again, as on SIGHUP
//
// POST asks for the header "Authorization: Bearer TOKEN" (see token.h; GET tells the token's file).
#pragma once

#include <memory>

#include "admin/token.h"
#include "namespaces/live.h"

namespace httplib {
class Server;
struct Request;
struct Response;
}  // namespace httplib

namespace prism::admin {

class ConfigRoutes {
 public:
  ConfigRoutes();
  ~ConfigRoutes();
  void add_to(httplib::Server& http);
  // Does the request show the token that changes ask for? Where not, it is answered.
  bool may_change(const httplib::Request& request, httplib::Response& response) const;
  // From now on; the file outlives it or is detached.
  void attach(LiveFile& file, Token token);
  // Returns when no request uses the file any more.
  void detach();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace prism::admin

// Router: from the names in a request to the chain that serves it. The API sees namespaces through this interface only.
#pragma once

#include <memory>
#include <stop_token>
#include <string>
#include <string_view>

#include "base/types.h"
#include "patterns/pattern.h"

namespace prism::api {

struct Route {
  Publisher* publisher = nullptr;
  Subscriber* subscriber = nullptr;
  std::string topic;           // the physical one
  std::string_view api;        // the namespace's own API, for people: "pubsub", "queue", ...; static storage
  bool serves_pubsub = false;  // which services may be called
  bool serves_queue = false;
  bool keeps_call_order = false;  // publishes of one caller may overlap and still come out in the order of the calls
  bool trace_patterns = true;     // spans for the patterns of the chain
  std::string namespace_name;
  std::shared_ptr<const void> keep;  // the pointers above are valid as long as it lives
  std::stop_token replaced;          // requested: what was subscribed is to be opened again (NAMESPACE_REPLACED)
};

// Thread-safe; called for every request, so it must be quick.
class Router {
 public:
  virtual ~Router() = default;
  // `bound`: the namespace the client is bound to, or empty. Then `name` is a topic in it (empty: the namespace's own);
  // unbound, `name` is a namespace or a topic that exactly one namespace serves. NAMESPACE_NOT_FOUND, TOPIC_AMBIGUOUS.
  // A change of the configuration may wait for those that hold a Route: not for longer than a publish takes.
  virtual Result<Route> resolve(std::string_view bound, std::string_view name) const = 0;
  // The same for a subscription, which may hold it as long as it likes.
  virtual Result<Route> resolve_to_subscribe(std::string_view bound, std::string_view name) const {
    return resolve(bound, name);
  }
  // The API that a namespace serves. NAMESPACE_NOT_FOUND, with the nearest names.
  virtual Result<std::string_view> api_of(std::string_view namespace_name) const = 0;
};

}  // namespace prism::api

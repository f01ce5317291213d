// What is measured of every call.
#pragma once

#include <grpcpp/support/status.h>

#include <string_view>

#include "base/types.h"

namespace prism::api {

// A method of the contract that is built; all of them are listed in methods.h. Static.
struct Method {
  std::string_view service;  // "prism.pubsub.v1.PubSubService"
  std::string_view name;     // "Publish"
  std::size_t index = 0;     // in the list
};

// Thread-safe, quick: called on gRPC's threads and on loops.
class CallMetrics {
 public:
  virtual ~CallMetrics() = default;
  virtual void started(const Method& method) noexcept = 0;
  virtual void finished(const Method& method, grpc::StatusCode code, Clock::duration took) noexcept = 0;
  // Messages that a call has published or delivered; bytes of their payloads.
  virtual void published(const Method& method, std::size_t messages, std::size_t bytes) noexcept = 0;
  virtual void delivered(const Method& method, std::size_t messages, std::size_t bytes) noexcept = 0;
};

class MeasuredCall {
 public:
  MeasuredCall(CallMetrics& metrics, const Method& method) noexcept : metrics_(metrics), method_(method) {
    metrics_.started(method_);
  }
  void finish(grpc::StatusCode code) noexcept { metrics_.finished(method_, code, Clock::now() - begun_); }
  void published(std::size_t messages, std::size_t bytes) noexcept { metrics_.published(method_, messages, bytes); }
  void delivered(std::size_t messages, std::size_t bytes) noexcept { metrics_.delivered(method_, messages, bytes); }

 private:
  CallMetrics& metrics_;
  const Method& method_;
  const Clock::time_point begun_ = Clock::now();
};

}  // namespace prism::api

// Requests of S3's protocol: signed, repeated where that is harmless, and with errors of Prism.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "backends/client/breaker.h"
#include "backends/s3/errors.h"
#include "backends/s3/http.h"
#include "backends/s3/options.h"
#include "backends/s3/xml.h"

namespace prism::s3 {

struct Call {
  std::string method;
  std::string bucket, key;  // an empty key: the bucket itself
  Query query;
  HeaderList headers;
  std::vector<Bytes> body;
  std::optional<std::uint64_t> fed;  // the body is given piece by piece, and the call not repeated; open() only
  bool sign_body = false;            // what Prism itself has written; else as the options say
  bool repeatable = true;            // doing it twice does what doing it once does
  bool read_only = false;            // nobody need care whether it has happened
};

struct Answer {
  HttpHead head;
  std::string body;
  bool repeated = false;  // an earlier try may have been carried out
};

struct Opened {
  HttpHead head;
  std::unique_ptr<Exchange> exchange;
};

// Any thread; resumes on its loop. The runtime must outlive it.
class Client {
 public:
  Client(Runtime& runtime, Options options, std::string name);

  // A success (2xx) with its whole body, of at most 64 MiB.
  Task<Result<Answer>> call(Context context, Call call);
  // A success whose body is still to be read, or, where the call is fed, an exchange that waits for its body.
  Task<Result<Opened>> open(Context context, Call call);
  // The error of an answer that is no success.
  Task<Error> refused(Context context, const HttpHead* head, Exchange* exchange, const Call* call);
  Task<Result<void>> create_bucket(Context context, std::string bucket);
  // Asks the server: for the bucket, or where it is empty whether it answers at all.
  Task<Result<void>> check(Context context, std::string bucket);
  Task<void> close() { return http_.close(); }

  EventLoop& loop() const noexcept { return http_.loop(); }
  const Options& options() const noexcept { return options_; }
  const client::Peer& peer() const noexcept { return peer_; }
  ConnectionUse use() const noexcept { return http_.use(); }

  Error protocol_error(std::string_view what, Retry retry) const {
    return client::protocol_error(peer_, "no " + std::string(what), retry);
  }

 private:
  HttpRequest request_of(const Call& call) const;
  Task<Result<Opened>> try_once(Context context, const Call* call);
  Task<Result<Answer>> call_once(Context context, const Call* call);
  template <class T>
  Task<Result<T>> repeated(Context context, const Call* call, Task<Result<T>> (Client::*once)(Context, const Call*));

  const Options options_;
  const Endpoint endpoint_;
  const client::Peer peer_;
  const std::optional<Credentials> credentials_;
  const std::string region_;
  std::optional<Signer> signer_;
  client::Breaker breaker_;
  HttpClient http_;
};

}  // namespace prism::s3

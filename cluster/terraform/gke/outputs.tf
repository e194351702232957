output "credentials" {
  description = "Command that makes kubectl and helm speak to the cluster"
  value       = "gcloud container clusters get-credentials ${google_container_cluster.main.name} --region ${var.region} --project ${var.project}"
}

output "bucket" {
  description = "Bucket of checkpoints, data, results and variants"
  value       = "gs://${google_storage_bucket.main.name}"
}

output "registry" {
  description = "Where images are pushed; the chart's image.registry unless given"
  value       = "${var.region}-docker.pkg.dev/${var.project}/${google_artifact_registry_repository.images.repository_id}"
}

output "secrets_account" {
  description = "Account that External Secrets acts as"
  value       = google_service_account.secrets.email
}

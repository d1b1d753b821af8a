// Package cnfmetricsv1 is generated from cnfmetrics.proto: the CNF metric model as applications see it.
package cnfmetricsv1
